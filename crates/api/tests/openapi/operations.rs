//! What each route takes and answers: the table that the document has beside `ROUTES`.

use ioward_api::{
    ApplyRequest, AuditLine, BeginMove, ChangeRequest, ChangeView, Compatible, CompatibleRequest, ErrorKind,
    FromSource, FromTarget, IntentRequest, Leaving, PartitionView, PlanRequest, PrepareRequest, Prepared,
    Reaped, Settled, Topic, VfDetail, WhoAmI,
};
use ioward_model::{
    AuditDropped, AuditEntry, Drift, Event, Inventory, Name, OpOutcome, OpenOperation, Orphan,
    PhysicalFunction, Plan, PlanRecord, Spec, State, StepRecord, VfOp, VfStatistics, doctor,
    handover::{Move, MovedPartition},
};
use serde_json::{Map, Value, json};

use crate::schemas::Schemas;

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const BYTES: &str = "application/octet-stream";

/// What a route takes and answers, in the members of an OpenAPI operation. Parameters of the path, and errors that follow from
/// these, are not in it.
#[derive(Default)]
pub struct Operation {
    /// Parameters of the query, and headers.
    pub parameters: Vec<Value>,
    /// The body, by media type.
    pub body: Option<(&'static str, Value)>,
    /// The answers that are no errors.
    pub answers: Map<String, Value>,
    /// Errors that are its own.
    pub errors: Vec<ErrorKind>,
}

impl Operation {
    /// One that answers 200 with content of a type.
    fn answers(media_type: &str, schema: Value) -> Self {
        Self::default().also("200", "Done", media_type, schema)
    }

    fn also(mut self, status: &str, description: &str, media_type: &str, schema: Value) -> Self {
        let answer =
            self.answers.entry(status).or_insert_with(|| json!({"description": description, "content": {}}));
        answer["content"][media_type] = json!({"schema": schema});
        self
    }

    fn takes(mut self, media_type: &'static str, schema: Value) -> Self {
        self.body = Some((media_type, schema));
        self
    }

    fn query(self, name: &str, schema: &Value, description: &str) -> Self {
        self.parameter("query", name, schema, description)
    }

    fn parameter(mut self, place: &str, name: &str, schema: &Value, description: &str) -> Self {
        self.parameters
            .push(json!({"name": name, "in": place, "schema": schema, "description": description}));
        self
    }

    fn header(mut self, name: &str, description: &str) -> Self {
        for answer in self.answers.values_mut() {
            answer["headers"][name] = json!({"description": description, "schema": {"type": "string"}});
        }
        self
    }

    /// It has an `ETag`, and nothing is sent to whoever has that already.
    fn tagged(self) -> Self {
        let known = "Answers 304 where it still has this ETag";
        let mut tagged = self.header("ETag", "Changes with it").parameter(
            "header",
            "If-None-Match",
            &json!({"type": "string"}),
            known,
        );
        tagged
            .answers
            .insert("304".to_owned(), json!({"description": "It still has the ETag of If-None-Match"}));
        tagged
    }

    /// It shows the host as it was a moment ago, unless somebody wants it as it is.
    fn looked_at(self) -> Self {
        let wish = "no-cache: look at the host anew";
        self.parameter("header", "Cache-Control", &json!({"type": "string"}), wish)
    }

    fn fails(mut self, errors: &[ErrorKind]) -> Self {
        self.errors.extend(errors);
        self
    }
}

/// Lines of JSON objects.
fn lines(of_a_line: &Value) -> Value {
    json!({"type": "string", "description": "One JSON object a line", "x-each-line": of_a_line})
}

/// What `GET /v1/state` answers. The type, `Export`, is the store's, which the API does not know: it is put together here once more.
fn export(schemas: &mut Schemas) -> Value {
    let dropped = schemas.of::<AuditDropped>();
    let number = json!({"type": "integer", "minimum": 1, "description": "Its number in the plan"});
    let number = json!({"type": "object", "required": ["number"], "properties": {"number": number}});
    let step = json!({"allOf": [schemas.of::<StepRecord>(), number]});
    let steps = json!({"type": "array", "items": step, "description": "Its steps that have begun"});
    let steps = json!({"type": "object", "required": ["steps"], "properties": {"steps": steps}});
    let plan = json!({"allOf": [schemas.of::<PlanRecord>(), steps]});
    json!({
        "type": "object",
        "description": "What docs/state.md describes",
        "required": ["schema", "state", "plans", "operations", "audit"],
        "properties": {
            "schema": {"type": "integer", "minimum": 0},
            "state": schemas.of::<State>(),
            "plans": {"type": "array", "items": plan},
            "operations": schemas.list_of::<OpenOperation>(),
            "audit": schemas.list_of::<AuditEntry>(),
            "audit_dropped": {"type": "object", "additionalProperties": dropped},
        },
    })
}

/// What a route takes and answers; `None`: there is no row for it.
pub fn operation(method: &str, path: &str, schemas: &mut Schemas) -> Option<Operation> {
    use ErrorKind::{Busy, NotFound, Precondition, Refused};

    let count = json!({"type": "integer", "minimum": 0});
    let switch = json!({"type": "boolean", "default": false});
    let text = json!({"type": "string"});
    let json = |schema| Operation::answers(JSON, schema);
    Some(match (method, path) {
        ("GET", "/v1/whoami") => json(schemas.of::<WhoAmI>()),
        ("GET", "/v1/host") => json(schemas.of::<Inventory>())
            .tagged()
            .header("Age", "How many seconds ago it was so")
            .looked_at(),
        ("GET", "/v1/partitions") => {
            let page = json!({"type": "integer", "minimum": 1});
            json(schemas.list_of::<PartitionView>())
                .header("Link", "rel=\"next\" where there are more (RFC 8288)")
                .query("limit", &page, "How many at most; without it, all")
                .query("after", &schemas.of::<Name>(), "The name before the first")
        }
        ("GET", "/v1/partitions/{name}") => json(schemas.of::<PartitionView>()).fails(&[NotFound]),
        ("GET", "/v1/partitions/{name}/console") => {
            Operation::answers(BYTES, json!({})).fails(&[NotFound, Busy])
        }
        ("POST", "/v1/partitions/{name}/console") => {
            let mut typing = Operation::default().takes(BYTES, json!({})).fails(&[NotFound, Busy]);
            typing.answers.insert("204".to_owned(), json!({"description": "It is typed"}));
            typing
        }
        ("GET", "/v1/adapters/{pf}") => json(schemas.of::<PhysicalFunction>()).fails(&[NotFound]).looked_at(),
        ("GET", "/v1/adapters/{pf}/vfs/{index}") => {
            json(schemas.of::<VfDetail>()).fails(&[NotFound]).looked_at()
        }
        ("GET", "/v1/adapters/{pf}/vfs/{index}/statistics") => {
            json(schemas.of::<VfStatistics>()).fails(&[NotFound, Refused])
        }
        ("POST", "/v1/adapters/{pf}/vfs/{index}/operations") => json(schemas.of::<OpOutcome>())
            .takes(JSON, schemas.of::<VfOp>())
            .fails(&[NotFound, Refused, Busy]),
        ("GET", "/v1/openapi.json") => json(json!({"type": "object"})).tagged(),
        ("GET", "/v1/doctor") => json(schemas.of::<doctor::Report>()),
        ("GET", "/metrics") => Operation::answers("text/plain", text),
        ("GET", "/v1/drift") => json(schemas.list_of::<Drift>()).fails(&[Busy]),
        ("GET", "/v1/orphans") => json(schemas.list_of::<Orphan>()).fails(&[Busy]),
        ("POST", "/v1/orphans/reap") => json(schemas.list_of::<Reaped>()).fails(&[Busy]),
        ("GET", "/v1/spec") => json(schemas.of::<Spec>())
            .tagged()
            .query("wanted", &switch, "The Spec that was last applied, in place of what is held")
            .fails(&[NotFound]),
        ("POST", "/v1/compatible") => json(schemas.list_of::<Compatible>())
            .takes(JSON, schemas.of::<CompatibleRequest>())
            .fails(&[NotFound, Refused]),
        ("POST", "/v1/plan") => json(schemas.of::<Plan>())
            .takes(JSON, schemas.of::<PlanRequest>())
            .fails(&[NotFound, Refused, Busy]),
        ("POST", "/v1/changes") => {
            let body = json!({"anyOf": [schemas.of::<ChangeRequest>(), schemas.of::<IntentRequest>()]});
            let key = json!({"type": "string", "pattern": "^[!-~]{1,128}$"});
            let begun = schemas.of::<ChangeView>();
            Operation::default()
                .also("200", "The change that this request has begun before", JSON, begun.clone())
                .also("201", "The change that has begun", JSON, begun)
                .header("Location", "Where the change is")
                .takes(JSON, body)
                .parameter("header", "Idempotency-Key", &key, "Makes requests with the same key one")
                .parameter("header", "If-Match", &text, "The ETag of /v1/spec that has to be current still")
                .fails(&[NotFound, Refused, Busy, Precondition])
        }
        ("GET", "/v1/changes") => json(schemas.list_of::<ChangeView>()),
        ("GET", "/v1/changes/{id}") => json(schemas.of::<ChangeView>()).fails(&[NotFound]),
        ("GET", "/v1/changes/{id}/events") => {
            Operation::answers(LINES, lines(&schemas.of::<Event>())).fails(&[NotFound])
        }
        ("DELETE", "/v1/changes/{id}") => json(schemas.of::<ChangeView>()).fails(&[NotFound]),
        ("POST", "/v1/apply") => Operation::answers(LINES, lines(&schemas.of::<Event>()))
            .takes(JSON, schemas.of::<ApplyRequest>())
            .fails(&[NotFound, Refused, Busy]),
        ("GET", "/v1/events") => {
            let since = json!({"anyOf": [count, {"type": "string", "enum": ["now"]}]});
            let topics = Topic::ALL.map(Topic::word);
            let topics = json!({"type": "array", "items": {"type": "string", "enum": topics}});
            let id = json!({"type": "string", "pattern": "^([0-9]+-[0-9]+)?$"});
            let mut events = Operation::answers(LINES, lines(&schemas.of::<Event>()))
                .also("200", "", "text/event-stream", text)
                .header("ioward-epoch", "The run of the daemon that the numbers count in")
                .header("ioward-last-event", "The number of the latest event")
                .query("follow", &switch, "Also those to come")
                .query("since", &since, "Those after the one of this number; now: only those to come")
                .query("epoch", &count, "The run of the daemon that `since` counts in")
                .query("last_event_id", &id, "As the header Last-Event-ID, for those who can't send it")
                .query("topics", &topics, "All others are left out")
                .parameter("header", "Last-Event-ID", &id, "EPOCH-NUMBER of the event that was seen last");
            for topics in events.parameters.iter_mut().filter(|it| it["name"] == "topics") {
                // One list with commas.
                topics["style"] = json!("form");
                topics["explode"] = json!(false);
            }
            events
        }
        ("GET", "/v1/audit") => Operation::answers(LINES, lines(&schemas.of::<AuditLine>()))
            .header(
                "Link",
                "rel=\"next\" where there are more, of what was asked for with `after` (RFC 8288)",
            )
            .query("limit", &count, "How many entries at most, the latest; with `after`, the next")
            .query("after", &count, "Those after the one of this number, oldest first")
            .query("partition", &schemas.of::<Name>(), "Those of this partition alone"),
        ("POST", "/v1/domains/{uuid}/prepare") => json(schemas.of::<Prepared>())
            .takes(JSON, schemas.of::<PrepareRequest>())
            .fails(&[NotFound, Refused, Busy]),
        ("GET", "/v1/moves") => json(json!({"type": "object", "additionalProperties": schemas.of::<Move>()})),
        ("POST", "/v1/moves") => json(schemas.of::<MovedPartition>())
            .takes(JSON, schemas.of::<BeginMove>())
            .fails(&[NotFound, Refused, Busy]),
        ("DELETE", "/v1/moves/{id}") | ("POST", "/v1/partitions/{name}/accept") => {
            json(schemas.of::<Settled>())
        }
        ("POST", "/v1/moves/{id}/source") => {
            json(schemas.of::<Leaving>()).takes(JSON, schemas.of::<FromTarget>())
        }
        ("POST", "/v1/moves/{id}/target") => {
            json(schemas.of::<FromTarget>()).takes(JSON, schemas.of::<FromSource>())
        }
        ("GET", "/v1/moves/{id}/state") => Operation::answers(BYTES, json!({})).fails(&[NotFound]),
        ("POST", "/v1/moves/{id}/state") => {
            let mut state = Operation::default().takes(BYTES, json!({})).fails(&[NotFound]);
            state.answers.insert("204".to_owned(), json!({"description": "It has gone in wholly"}));
            state
        }
        ("GET", "/v1/state") => json(export(schemas)),
        _ => return None,
    })
}
