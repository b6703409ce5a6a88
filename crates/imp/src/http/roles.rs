//! Whether a request goes on to its route: the role of whoever asks against that of the table.

use axum::{
    extract::{DefaultBodyLimit, Extension, Request},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ioward_api::{ErrorKind, Role, Route, WhoAmI};
use ioward_model::Options;

use super::{body, json::Json, problem::Failure};
use crate::access::Caller;

/// The largest request that is read: a plan for a host of 1,000 partitions, with room.
const MAX_BODY: usize = 16 << 20;
/// The largest one of a viewer, who sends no plans: a Spec for 1,000 partitions, twice over.
const MAX_BODY_OF_A_VIEWER: usize = 1 << 20;

pub(super) async fn admit(mut request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().copied();
    let Some(Caller { uid, role: Some(role) }) = caller else {
        let mut response = no_role(caller).into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    };
    let (method, path) = (request.method().as_str(), request.uri().path());
    if let Some(route) = Route::find(method, path)
        && let Err(failure) = has(uid, role, route.role, &format!("{} {}", route.method, route.path))
    {
        return failure.into_response();
    }
    // A viewer has less room, since each user of the host may be one.
    let limit = if role == Role::Viewer { MAX_BODY_OF_A_VIEWER } else { MAX_BODY };
    DefaultBodyLimit::max(limit).apply(&mut request);
    next.run(request.map(body::in_time)).await
}

fn no_role(caller: Option<Caller>) -> Failure {
    let who = caller.map_or_else(|| "nobody".to_owned(), |caller| format!("user {}", caller.uid));
    Failure::new(
        ErrorKind::Forbidden,
        format!(
            "{who} may not use ioward, which is for {}; as root: usermod -aG {} USER, and a new login",
            Role::Viewer.who(),
            ioward_api::VIEW_GROUP
        ),
    )
}

/// Whether a role suffices for something.
fn has(uid: u32, role: Role, needed: Role, what: &str) -> Result<(), Failure> {
    if role >= needed {
        return Ok(());
    }
    let message = format!("user {uid} is a {role}, and {what} is for {}", needed.who());
    Err(Failure::new(ErrorKind::Forbidden, message))
}

/// What protects the host is overridden by an administrator only.
pub(super) fn may_use(caller: Caller, options: &Options) -> Result<(), Failure> {
    let role = caller.role.ok_or_else(|| no_role(Some(caller)))?;
    for (is_set, name) in [(options.allow_management_nic, "allow_management_nic"), (options.force, "force")] {
        if is_set {
            has(caller.uid, role, Role::Administrator, &format!("the option {name}"))?;
        }
    }
    Ok(())
}

pub(super) async fn whoami(Extension(caller): Extension<Caller>) -> Result<Json<WhoAmI>, Failure> {
    let role = caller.role.ok_or_else(|| no_role(Some(caller)))?;
    Ok(Json(WhoAmI { uid: caller.uid, role }))
}
