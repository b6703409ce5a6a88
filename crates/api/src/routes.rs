//! The routes of the API and the role that each takes: one table, which the router, the documents and the tests share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The group whose members look.
pub const VIEW_GROUP: &str = "ioward-view";
/// The group whose members change things.
pub const ADMIN_GROUP: &str = "ioward-admin";

/// What somebody may do. Each role may do all that those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks, and changes nothing.
    Viewer,
    /// Changes what partitions have.
    Operator,
    /// Overrides what protects the host, and reads and does what is for root.
    Administrator,
}

impl Role {
    /// Its name in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }

    /// Who has at least this role.
    #[must_use]
    pub const fn who(self) -> &'static str {
        match self {
            Self::Viewer => "members of group ioward-view or ioward-admin, and root",
            Self::Operator => "members of group ioward-admin, and root",
            Self::Administrator => "root",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Answer of `GET /v1/whoami`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// The user of whoever asks.
    pub uid: u32,
    /// The role.
    pub role: Role,
}

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// `GET`, `POST` or `DELETE`. A route with `GET` takes `HEAD` too.
    pub method: &'static str,
    /// Its path; a segment in braces stands for any one.
    pub path: &'static str,
    /// The least role that may use it.
    pub role: Role,
    /// What it does, in a few words.
    pub summary: &'static str,
}

const fn route(method: &'static str, path: &'static str, role: Role, summary: &'static str) -> Route {
    Route { method, path, role, summary }
}

/// All routes.
pub const ROUTES: &[Route] = &[
    route("GET", "/v1/whoami", Role::Viewer, "Who asks, and the role"),
    route("GET", "/v1/host", Role::Viewer, "The inventory, as it is or was up to two seconds ago"),
    route("GET", "/v1/partitions", Role::Viewer, "The partitions"),
    route("GET", "/v1/partitions/{name}", Role::Viewer, "One partition"),
    route(
        "GET",
        "/v1/partitions/{name}/console",
        Role::Operator,
        "What its serial console prints from now on",
    ),
    route("POST", "/v1/partitions/{name}/console", Role::Operator, "Types on its serial console"),
    route("GET", "/v1/adapters/{pf}", Role::Viewer, "One adapter"),
    route("GET", "/v1/adapters/{pf}/vfs/{index}", Role::Viewer, "One VF"),
    route("GET", "/v1/adapters/{pf}/vfs/{index}/statistics", Role::Viewer, "A VF's traffic counters"),
    route(
        "POST",
        "/v1/adapters/{pf}/vfs/{index}/operations",
        Role::Operator,
        "An operation on a partition's VF",
    ),
    route("GET", "/v1/openapi.json", Role::Viewer, "This description of the API"),
    route("GET", "/v1/doctor", Role::Viewer, "Whether the host can give VFs, and what is missing"),
    route("GET", "/metrics", Role::Viewer, "The metrics, for Prometheus"),
    route("GET", "/v1/drift", Role::Viewer, "How the host differs from the state"),
    route("GET", "/v1/orphans", Role::Viewer, "VFs that are nobody's"),
    route("POST", "/v1/orphans/reap", Role::Administrator, "Resets and unbinds VFs that are nobody's"),
    route("GET", "/v1/spec", Role::Viewer, "The Spec of what is held, or of what was applied last"),
    route(
        "POST",
        "/v1/compatible",
        Role::Viewer,
        "Which functions suit a partition, and why the others do not",
    ),
    route("POST", "/v1/plan", Role::Viewer, "Plans for an intent; changes nothing"),
    route("POST", "/v1/changes", Role::Operator, "Begins a change"),
    route("GET", "/v1/changes", Role::Viewer, "The latest changes of this run of the daemon"),
    route("GET", "/v1/changes/{id}", Role::Viewer, "One change"),
    route("GET", "/v1/changes/{id}/events", Role::Viewer, "The events of a change, up to its end"),
    route("DELETE", "/v1/changes/{id}", Role::Operator, "Cancels a change"),
    route("POST", "/v1/apply", Role::Operator, "Begins a change that ends with the connection"),
    route("GET", "/v1/events", Role::Viewer, "What happened, and what happens"),
    route("GET", "/v1/audit", Role::Viewer, "Operations of partitions"),
    route(
        "POST",
        "/v1/domains/{uuid}/prepare",
        Role::Administrator,
        "Makes the VFs of a domain ready for its start",
    ),
    route("GET", "/v1/moves", Role::Viewer, "Partitions that are being moved to or from another host"),
    route("POST", "/v1/moves", Role::Administrator, "Begins to move a partition to another host"),
    route("DELETE", "/v1/moves/{id}", Role::Administrator, "Has a partition that is being moved stay here"),
    route("POST", "/v1/moves/{id}/source", Role::Administrator, "What the target of a move says"),
    route("POST", "/v1/moves/{id}/target", Role::Administrator, "What the source of a move says"),
    route("GET", "/v1/moves/{id}/state", Role::Administrator, "The state of a machine that is moved away"),
    route("POST", "/v1/moves/{id}/state", Role::Administrator, "The state of a machine that is moved here"),
    route(
        "POST",
        "/v1/partitions/{name}/accept",
        Role::Administrator,
        "Takes a partition that has come here, and whose source is gone for good",
    ),
    route("GET", "/v1/state", Role::Administrator, "Everything that is kept on the disk"),
];

impl Route {
    /// The route for this method and path; `None` where there is none.
    #[must_use]
    pub fn find(method: &str, path: &str) -> Option<&'static Self> {
        let method = if method == "HEAD" { "GET" } else { method };
        ROUTES.iter().find(|route| route.method == method && is_of(route.path, path))
    }
}

/// Whether a path is one that a template stands for.
fn is_of(template: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found => {}
            (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_the_route_whose_template_it_is_of() {
        let found = |method, path| Route::find(method, path).map(|route| route.path);
        assert_eq!(found("GET", "/v1/host"), Some("/v1/host"));
        assert_eq!(found("HEAD", "/v1/host"), Some("/v1/host"));
        assert_eq!(found("DELETE", "/v1/changes/1-2"), Some("/v1/changes/{id}"));
        for (method, path) in [
            ("POST", "/v1/host"),
            ("GET", "/v1/host/"),
            ("GET", "/v1/changes/"),
            ("GET", "/v1/changes/1-2/events/3"),
            ("GET", "v1/host"),
            ("GET", ""),
        ] {
            assert_eq!(found(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn no_two_routes_are_the_same_and_each_says_what_it_does() {
        for (at, route) in ROUTES.iter().enumerate() {
            assert!(!route.summary.is_empty());
            let same = |other: &Route| (other.method, other.path) == (route.method, route.path);
            assert!(!ROUTES[..at].iter().any(same), "{route:?}");
        }
    }
}
