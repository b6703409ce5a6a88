//! What there is: the host, its partitions, what is held and wanted, what was asked by whom.

use std::{collections::BTreeMap, num::NonZero, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use ioward_api::{AuditLine, ErrorKind, NumberedEntry, Reaped};
use ioward_model::{AuditDropped, Drift, Inventory, Name, Orphan};
use ioward_store::Export;
use serde::Deserialize;

use super::{
    etag,
    json::{Json, to_json},
    lines::lines,
    problem::Failure,
};
use crate::imp::Imp;

/// How many audit entries one answer holds.
const AUDIT_LIMIT: usize = 10_000;

pub(super) async fn host(State(imp): State<Arc<Imp>>, asked: HeaderMap) -> Result<Response, Failure> {
    let (inventory, age) = look(&imp, &asked).await?;
    let body = to_json(&*inventory)?;
    let mut response = etag::tagged(&asked, &etag::of_host(inventory.generation, &body), body);
    response.headers_mut().insert(header::AGE, age.as_secs().into());
    Ok(response)
}

/// The host as it was a moment ago, or as it is now for whoever asks so (RFC 9111 §5.2.1.4); and how long ago that was.
pub(super) async fn look(imp: &Imp, asked: &HeaderMap) -> Result<(Arc<Inventory>, Duration), Failure> {
    let wishes = asked.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut wishes = wishes.flat_map(|value| value.split(','));
    if wishes.any(|wish| wish.trim().eq_ignore_ascii_case("no-cache")) {
        return Ok((Arc::new(imp.look().await?), Duration::ZERO));
    }
    Ok(imp.look_recent().await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// How many at most; all if it does not say.
    limit: Option<NonZero<usize>>,
    /// The name before the first.
    after: Option<Name>,
}

/// The partitions by name; where there are more of them, `Link` says where (RFC 8288).
pub(super) async fn partitions(
    State(imp): State<Arc<Imp>>,
    query: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Page { limit, after }) = query?;
    let mut all = imp.partitions().await?;
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all.retain(|partition| after.as_ref().is_none_or(|after| partition.name > *after));
    let limit = limit.map_or(usize::MAX, NonZero::get);
    let is_more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| is_more);
    let next = next.map(|last| format!("</v1/partitions?limit={limit}&after={}>; rel=\"next\"", last.name));
    Ok(linked(Json(all).into_response(), next))
}

/// An answer that says where the next page is, if there is one.
fn linked(mut answer: Response, next: Option<String>) -> Response {
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        answer.headers_mut().insert(header::LINK, next);
    }
    answer
}

pub(super) async fn drift(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Drift>>, Failure> {
    Ok(Json(imp.drift().await?))
}

pub(super) async fn orphans(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Orphan>>, Failure> {
    Ok(Json(imp.orphans().await?))
}

pub(super) async fn reap(State(imp): State<Arc<Imp>>) -> Result<Json<Vec<Reaped>>, Failure> {
    Ok(Json(imp.reap_orphans().await?))
}

#[derive(Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    wanted: bool,
}

pub(super) async fn spec(
    State(imp): State<Arc<Imp>>,
    asked: HeaderMap,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Which { wanted }) = query?;
    let generation = match imp.looks.generation() {
        Some(generation) => generation,
        None => imp.look().await?.generation,
    };
    let state = imp.state();
    let tag = etag::version(state.revision, generation);
    let none = || Failure::new(ErrorKind::NotFound, "no Spec has been applied yet: 'ioward apply -f SPEC'");
    let spec = if wanted { *state.wanted.ok_or_else(none)? } else { state.to_spec() };
    Ok(etag::tagged(&asked, &tag, to_json(&spec)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Latest {
    /// How many at most.
    limit: Option<usize>,
    /// Whose alone.
    partition: Option<Name>,
    /// The number of the entry before the first.
    after: Option<u64>,
}

/// The latest entries that are asked for, of the latest [`AUDIT_LIMIT`] there are.
pub(super) async fn audit(
    State(imp): State<Arc<Imp>>,
    query: Result<Query<Latest>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Latest { limit, partition, after }) = query?;
    if let Some(after) = after {
        return audit_page(&imp, after, limit.unwrap_or(AUDIT_LIMIT), partition).await;
    }
    let (mut entries, mut dropped) = imp.read_audit(AUDIT_LIMIT).await?;
    if let Some(only) = partition {
        entries.retain(|entry| entry.partition == only);
        dropped.retain(|partition, _| *partition == only);
    }
    let rest = entries.len().saturating_sub(limit.unwrap_or(AUDIT_LIMIT));
    entries.drain(..rest);
    Ok(audit_lines(entries.into_iter().map(|entry| NumberedEntry { number: None, entry }), dropped))
}

fn audit_lines(
    entries: impl Iterator<Item = NumberedEntry> + Send + 'static,
    dropped: BTreeMap<Name, AuditDropped>,
) -> Response {
    let dropped = dropped.into_iter().filter(|(_, dropped)| !dropped.is_empty());
    let dropped = dropped.map(|(partition, dropped)| AuditLine::Dropped { partition, dropped });
    lines(stream::iter(entries.map(AuditLine::Entry).chain(dropped)).map(|line| vec![line]))
}

/// A page of the log. What is not kept any more is told at the end of the last one.
async fn audit_page(
    imp: &Arc<Imp>,
    after: u64,
    limit: usize,
    partition: Option<Name>,
) -> Result<Response, Failure> {
    let limit = limit.clamp(1, AUDIT_LIMIT);
    let (mut entries, mut dropped) = imp.read_audit_after(after, limit + 1, partition.clone()).await?;
    let is_more = entries.len() > limit;
    entries.truncate(limit);
    let mut next = None;
    if let Some((last, _)) = entries.last().filter(|_| is_more) {
        let of = partition.as_ref().map_or(String::new(), |partition| format!("&partition={partition}"));
        next = Some(format!("</v1/audit?limit={limit}&after={last}{of}>; rel=\"next\""));
        dropped.clear();
    } else if let Some(only) = partition {
        dropped.retain(|partition, _| *partition == only);
    }
    let numbered = |(number, entry)| NumberedEntry { number: Some(number), entry };
    Ok(linked(audit_lines(entries.into_iter().map(numbered), dropped), next))
}

pub(super) async fn state(State(imp): State<Arc<Imp>>) -> Result<Json<Export>, Failure> {
    Ok(Json(imp.read_export().await?))
}
