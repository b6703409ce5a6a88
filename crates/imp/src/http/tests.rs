//! The table of routes against the router, cell by cell, on the simulated machine.

mod openapi;
mod slow;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use ioward_api::Role;
use ioward_fabric::sim::SimMachine;
use ioward_hypervisor::sim::{Bounds, SimConfig, SimHypervisor};

use super::*;
use crate::{access::Caller, clock::Clock, imp::Run};

const ROLES: [Option<Role>; 4] = [None, Some(Role::Viewer), Some(Role::Operator), Some(Role::Administrator)];

struct Api {
    service: TowerToHyperService<Router>,
    imp: Arc<Imp>,
    machine: SimMachine,
    _folder: tempfile::TempDir,
}

impl Api {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SimConfig {
            runtime_dir: folder.path().join("run"),
            program: "/nonexistent".into(),
            arguments: Vec::new(),
            bounds: Bounds::default(),
        };
        let hypervisor = Arc::new(SimHypervisor::new(config).unwrap());
        let (store, contents) = ioward_store::open(&folder.path().join("state")).unwrap();
        let run = Run { epoch: 1, boot: String::new(), clock: Clock::default() };
        let machine = SimMachine::standard(1);
        let fabric = Arc::new(machine.fabric());
        let imp = Imp::new(fabric, hypervisor, Box::new(store), contents, run);
        let service = TowerToHyperService::new(router(Arc::clone(&imp)));
        Self { service, imp, machine, _folder: folder }
    }

    /// The status of a request of somebody with this role.
    async fn asked(&self, role: Option<Role>, method: &str, path: &str, body: String) -> StatusCode {
        let caller = Caller { uid: 1000, role };
        let request = Request::builder().method(method).uri(path).extension(caller);
        let request = request.header("content-type", "application/json").body(Body::from(body)).unwrap();
        self.service.call(request).await.unwrap().status()
    }
}

#[test]
fn each_row_of_the_table_has_a_handler() {
    let without: Vec<_> = ROUTES.iter().filter(|row| handler(row).is_none()).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test]
async fn each_route_takes_the_role_of_its_row_and_no_more() {
    let api = Api::new();
    for row in ROUTES {
        let path: Vec<_> =
            row.path.split('/').map(|it| if it.starts_with('{') { "1-1" } else { it }).collect();
        for role in ROLES {
            let status = api.asked(role, row.method, &path.join("/"), "{}".into()).await;
            let is_forbidden = status == StatusCode::FORBIDDEN;
            assert_eq!(
                is_forbidden,
                role < Some(row.role),
                "{role:?}: {} {}: {status}",
                row.method,
                row.path
            );
            // Whoever is let in finds the route that the table says.
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{} {}", row.method, row.path);
        }
    }
}

/// What is not in the table is not told to those without a role, and is there for nobody.
#[tokio::test]
async fn what_is_no_route_is_none_for_anybody() {
    let api = Api::new();
    for role in ROLES {
        let expected = |of_others| if role.is_none() { StatusCode::FORBIDDEN } else { of_others };
        let status = api.asked(role, "GET", "/v1/hots", String::new()).await;
        assert_eq!(status, expected(StatusCode::NOT_FOUND), "{role:?}");
        let status = api.asked(role, "PUT", "/v1/host", String::new()).await;
        assert_eq!(status, expected(StatusCode::METHOD_NOT_ALLOWED), "{role:?}");
    }
    let nobody = Request::builder().uri("/v1/host").body(Body::empty()).unwrap();
    assert_eq!(api.service.call(nobody).await.unwrap().status(), StatusCode::FORBIDDEN, "not told apart");
}

/// An operator changes what partitions have; what protects the host is root's to override.
#[tokio::test]
async fn the_options_that_override_protection_take_an_administrator() {
    let api = Api::new();
    let plan = |options: serde_json::Value| {
        let intent = serde_json::json!({"intent": "apply", "spec": {"version": 1}});
        serde_json::json!({"plan": {"id": 1, "parent": 0, "generation": 1, "intent": intent, "options": options,
            "steps": [], "disturbs": [], "placements": []}})
    };
    for (option, least) in [
        ("allow_disruption", Role::Operator),
        ("allow_management_nic", Role::Administrator),
        ("force", Role::Administrator),
    ] {
        let body = plan(serde_json::json!({ option: true })).to_string();
        for path in ["/v1/changes", "/v1/apply"] {
            for role in ROLES {
                let status = api.asked(role, "POST", path, body.clone()).await;
                assert_ne!(status, StatusCode::BAD_REQUEST, "{body}");
                let is_forbidden = status == StatusCode::FORBIDDEN;
                assert_eq!(is_forbidden, role < Some(least), "{role:?}: {path}: {option}: {status}");
            }
        }
    }
}

/// Each request looked at the whole host, at all processes too: a viewer who asked again and again kept a core busy as root. Now the host is
/// looked at anew when something is known to have changed, when two seconds have passed, and for who asks so.
#[tokio::test(start_paused = true)]
async fn who_only_looks_may_see_the_host_as_it_was_a_moment_ago() {
    let api = Api::new();
    let pf = api.machine.physical_functions()[0];
    let num_vfs = async |wish: &str| {
        let caller = Caller { uid: 1000, role: Some(Role::Viewer) };
        let request = Request::builder().uri("/v1/host").header("cache-control", wish).extension(caller);
        let answer = api.service.call(request.body(Body::empty()).unwrap()).await.unwrap();
        let age = answer.headers()["age"].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 24).await.unwrap();
        let inventory: ioward_model::Inventory = serde_json::from_slice(&body).unwrap();
        (inventory.physical_function(pf).unwrap().num_vfs(), age)
    };
    let (seconds, at_once) = (std::time::Duration::from_secs, "0".to_owned());
    assert_eq!(num_vfs("").await, (0, at_once.clone()));

    // Somebody writes to sysfs, and the kernel tells nobody.
    api.machine.write_numvfs(pf, 2).unwrap();
    tokio::time::advance(seconds(1)).await;
    assert_eq!(num_vfs("").await, (0, "1".to_owned()));
    assert_eq!(num_vfs("max-age=0, no-cache").await, (2, at_once.clone()));
    assert_eq!(num_vfs("").await, (2, at_once.clone()), "that look counts for all");
    api.machine.write_numvfs(pf, 0).unwrap();
    tokio::time::advance(seconds(2)).await;
    assert_eq!(num_vfs("").await, (0, at_once.clone()));

    // The kernel tells.
    api.machine.write_numvfs(pf, 3).unwrap();
    api.imp.looks.hear();
    assert_eq!(num_vfs("").await, (3, at_once.clone()));
    // ioward itself changes it.
    api.imp.executor.runner.fabric.set_vf_count(pf, 0).await.unwrap();
    assert_eq!(num_vfs("").await, (0, at_once));
}

#[tokio::test]
async fn a_viewer_has_less_room_for_a_body() {
    let api = Api::new();
    let body = " ".repeat(2 << 20);
    let viewer = api.asked(Some(Role::Viewer), "POST", "/v1/plan", body.clone()).await;
    let operator = api.asked(Some(Role::Operator), "POST", "/v1/plan", body).await;
    assert_eq!((viewer, operator), (StatusCode::PAYLOAD_TOO_LARGE, StatusCode::BAD_REQUEST));
}
