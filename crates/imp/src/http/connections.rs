//! Connections: who is at the other end of each, and how many there may be. A slow client holds up itself alone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{UnixListener, UnixStream};

use crate::access::{Access, Peer};

/// Connections that a user who is no administrator may have open at once.
const OPEN_FOR_A_USER: usize = 64;

/// How long the head of a request may take. It is also how long a connection is kept on which nothing is asked.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long nobody is accepted after that has failed for want of something (descriptors, memory).
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// What a user is told who has too many connections already, whatever the request was going to be.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 423 Locked\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n\
    {\"type\":\"urn:ioward:problem:busy\",\"title\":\"Busy\",\"status\":423,\
    \"detail\":\"this user has 64 connections open already; close some\",\
    \"error\":{\"kind\":\"busy\",\"message\":\"this user has 64 connections open already; close some\"}}";

/// Serves whoever connects, for ever.
pub(crate) async fn serve(listener: UnixListener, router: Router, access: Access) -> Infallible {
    let (service, open) = (TowerToHyperService::new(router), Arc::<Open>::default());
    loop {
        let stream = accept(&listener).await;
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!("cannot tell who has connected to the API socket: {error}");
                continue;
            }
        };
        let caller = access.caller(&peer);
        let place = if access.is_administrator(peer.uid) {
            None
        } else if let Some(place) = open.enter(peer.uid) {
            Some(place)
        } else {
            // Whether or not there is anybody to read it.
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|mut request: Request<Incoming>| {
                request.extensions_mut().insert(caller);
                service.call(request)
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
            // How a client goes away is its own business.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!("cannot accept connections to the API socket: {error}");
                tokio::time::sleep(AFTER_A_FAILURE).await;
            }
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

/// How many connections each user has.
#[derive(Default)]
struct Open {
    by_user: Mutex<BTreeMap<u32, usize>>,
}

/// A connection that is counted, for as long as this is there.
struct Place {
    open: Arc<Open>,
    uid: u32,
}

impl Open {
    fn enter(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_user.entry(uid).or_default();
        if *count == OPEN_FOR_A_USER {
            return None;
        }
        *count += 1;
        Some(Place { open: Arc::clone(self), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_user = self.open.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_user.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_connections_and_takes_none_from_others() {
        let open = Arc::<Open>::default();
        let mut places: Vec<_> = (0..OPEN_FOR_A_USER).map(|_| open.enter(7).unwrap()).collect();
        assert!(open.enter(7).is_none());
        let _other = open.enter(8).unwrap();
        places.pop();
        assert!(open.enter(7).is_some(), "one has gone");
        drop(places);
        assert_eq!(open.by_user.lock().unwrap().keys().collect::<Vec<_>>(), [&8]);
    }

    #[test]
    fn what_is_told_without_a_request_is_a_problem_like_any_other() {
        let body = TOO_MANY.split(|byte| *byte == b'\n').next_back().unwrap();
        let problem: ioward_api::Problem = serde_json::from_slice(body).unwrap();
        assert_eq!(problem, problem.error.clone().into());
        assert!(problem.detail.contains(&format!(" {OPEN_FOR_A_USER} ")));
    }
}
