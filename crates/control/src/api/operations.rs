//! Every operation of the API, one entry each. The router serves what stands here and nothing else, the roles are asked as it
//! says here, and the description ([`super::openapi`]) is made of it: nothing is served that isn't described.

use axum::Router;
use axum::routing::{self, MethodRouter};
use kakei_config::Document;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{certificates, changes, config, drains, events, health, objects, openapi, terms};
use crate::access::Role;
use crate::edit::{Edit, NewBackend};
use crate::events::Event;
use crate::explain::Explanation;
use crate::handle::{Handle, Outcome};
use crate::history::Entry;

/// An operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// With places for names: `/v1/generations/{generation}`.
    pub(crate) path: &'static str,
    /// What it is called, once only.
    pub(crate) name: &'static str,
    /// What it does, in one sentence.
    pub(crate) summary: &'static str,
    /// Its method, and who serves it.
    on: (Verb, fn() -> MethodRouter<Handle>),
    /// What whoever asks must be allowed to do.
    pub(crate) needs: Role,
    /// Whether the metrics address has it, too.
    pub(crate) is_public: bool,
    /// What may stand in the query.
    pub(crate) query: Option<Shape>,
    /// Whether it is only done where the generation that is named in `If-Match` runs.
    pub(crate) is_conditional: bool,
    /// What the body is, and whether there must be one.
    pub(crate) takes: Option<(bool, &'static [Content])>,
    /// What a good answer is.
    pub(crate) gives: &'static [Content],
    /// Another status that may come with such an answer.
    pub(crate) also: Option<u16>,
    /// Whether a good answer names the generation that it is about in `ETag`.
    pub(crate) is_tagged: bool,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

/// Makes the schema of a type.
pub(crate) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// A kind of body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Json(Shape),
    Toml,
    Text,
    Metrics,
    /// Server-sent events, each of this kind.
    Events(Shape),
}

/// The schema of a type, by reference.
fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The schema of what a query may say, by itself.
fn asks<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

macro_rules! on {
    (GET $handler:expr) => {
        (Verb::Get, || routing::get($handler))
    };
    (PUT $handler:expr) => {
        (Verb::Put, || routing::put($handler))
    };
    (POST $handler:expr) => {
        (Verb::Post, || routing::post($handler))
    };
    (PATCH $handler:expr) => {
        (Verb::Patch, || routing::patch($handler))
    };
    (DELETE $handler:expr) => {
        (Verb::Delete, || routing::delete($handler))
    };
}

/// Looks at something.
const LOOK: Operation = Operation {
    path: "",
    name: "",
    summary: "",
    on: on!(GET async || ()),
    needs: Role::ReadOnly,
    is_public: false,
    query: None,
    is_conditional: false,
    takes: None,
    gives: &[],
    also: None,
    is_tagged: false,
};

/// The same, for whoever reaches the metrics address, too.
const PUBLIC: Operation = Operation { is_public: true, gives: &[Content::Text], ..LOOK };

/// Changes something, as one transaction.
const CHANGE: Operation = Operation {
    needs: Role::ReadWrite,
    query: Some(asks::<terms::TermsQuery>),
    is_conditional: true,
    gives: &[Content::Json(of::<Outcome>)],
    is_tagged: true,
    ..LOOK
};

/// Keeps a change that waits to be confirmed.
const CONFIRM: Operation = Operation {
    needs: Role::ReadWrite,
    query: Some(asks::<terms::MessageQuery>),
    gives: &[Content::Json(of::<changes::Confirmed>)],
    ..LOOK
};

/// See the module's words.
pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/v1/config",
        name: "config",
        summary: "The document that runs, in canonical form.",
        on: on!(GET config::read),
        gives: &[Content::Json(of::<Document>), Content::Toml],
        is_tagged: true,
        ..LOOK
    },
    Operation {
        path: "/v1/config",
        name: "replace_config",
        summary: "Go over to this document.",
        on: on!(PUT config::replace),
        takes: Some((true, &[Content::Json(of::<Document>), Content::Toml])),
        ..CHANGE
    },
    Operation {
        path: "/v1/status",
        name: "status",
        summary: "The whole at a glance.",
        on: on!(GET objects::status),
        gives: &[Content::Json(of::<objects::Status>)],
        ..LOOK
    },
    Operation {
        path: "/v1/listeners",
        name: "listeners",
        summary: "Where clients arrive, with what is counted there.",
        on: on!(GET objects::listeners),
        gives: &[Content::Json(of::<Vec<objects::ListenerRow>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/routes",
        name: "routes",
        summary: "What refines listeners.",
        on: on!(GET objects::routes),
        gives: &[Content::Json(of::<Vec<objects::RouteRow>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/clusters",
        name: "clusters",
        summary: "Groups of backends, with what is counted of them.",
        on: on!(GET objects::clusters),
        gives: &[Content::Json(of::<Vec<objects::ClusterRow>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/backends",
        name: "backends",
        summary: "Servers, with what is counted of them; those that were removed and still hold something, too.",
        on: on!(GET objects::backends),
        gives: &[Content::Json(of::<Vec<objects::BackendRow>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/certificates",
        name: "certificates",
        summary: "What is shown to TLS clients, and until when; never a key.",
        on: on!(GET certificates::list),
        gives: &[Content::Json(of::<Vec<certificates::Row>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/flows",
        name: "flows",
        summary: "Live flows.",
        on: on!(GET objects::flows),
        query: Some(asks::<objects::ListQuery>),
        gives: &[Content::Json(of::<Vec<kakei_proxy::seam::FlowView>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/connections",
        name: "connections",
        summary: "Live connections.",
        on: on!(GET objects::connections),
        query: Some(asks::<objects::ListQuery>),
        gives: &[Content::Json(of::<Vec<kakei_proxy::seam::ConnectionView>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/drains/{kind}/{name}",
        name: "drain",
        summary: "Who still holds a listener, a route, a cluster or a backend (with its `cluster`), since when, until when, and what was cut of it.",
        on: on!(GET drains::report),
        query: Some(asks::<drains::DrainQuery>),
        gives: &[Content::Json(of::<crate::drains::Report>)],
        ..LOOK
    },
    Operation {
        path: "/v1/explain",
        name: "explain",
        summary: "Where a datagram, a connection or a request goes, and why not elsewhere. `local` or `url` is needed, and `client` without `url`.",
        on: on!(GET objects::explain),
        query: Some(asks::<objects::ExplainQuery>),
        gives: &[Content::Json(of::<Explanation>)],
        ..LOOK
    },
    Operation {
        path: "/v1/changes",
        name: "change",
        summary: "A list of changes as one transaction: all of them, or none.",
        on: on!(POST changes::batch),
        takes: Some((true, &[Content::Json(of::<Vec<Edit>>)])),
        ..CHANGE
    },
    Operation {
        path: "/v1/clusters/{cluster}/backends",
        name: "add_backend",
        summary: "Add a backend to a cluster.",
        on: on!(POST config::add_backend),
        takes: Some((true, &[Content::Json(of::<NewBackend>)])),
        ..CHANGE
    },
    Operation {
        path: "/v1/clusters/{cluster}/backends/{backend}",
        name: "remove_backend",
        summary: "Remove a backend from a cluster.",
        on: on!(DELETE config::remove_backend),
        ..CHANGE
    },
    Operation {
        path: "/v1/clusters/{cluster}/backends/{backend}",
        name: "weigh_backend",
        summary: "Give a backend another weight; 0 drains it.",
        on: on!(PATCH config::weigh_backend),
        takes: Some((true, &[Content::Json(of::<config::BackendPatch>)])),
        ..CHANGE
    },
    Operation {
        path: "/v1/rollback",
        name: "rollback",
        summary: "Go back to what a generation was; without a body, to what ran before.",
        on: on!(POST changes::rollback),
        takes: Some((false, &[Content::Json(of::<changes::Back>)])),
        ..CHANGE
    },
    Operation {
        path: "/v1/confirm",
        name: "confirm",
        summary: "Keep the change that waits to be confirmed.",
        on: on!(POST changes::confirm_any),
        ..CONFIRM
    },
    Operation {
        path: "/v1/generations",
        name: "generations",
        summary: "The generations that can be gone back to, oldest first.",
        on: on!(GET objects::generations),
        gives: &[Content::Json(of::<Vec<Entry>>)],
        ..LOOK
    },
    Operation {
        path: "/v1/generations/{generation}",
        name: "generation",
        summary: "The document of a generation.",
        on: on!(GET changes::generation),
        gives: &[Content::Json(of::<Document>)],
        is_tagged: true,
        ..LOOK
    },
    Operation {
        path: "/v1/generations/{generation}/confirm",
        name: "confirm_generation",
        summary: "Keep this change, if it waits to be confirmed.",
        on: on!(POST changes::confirm),
        ..CONFIRM
    },
    Operation {
        path: "/v1/diff",
        name: "diff",
        summary: "What makes one generation of another.",
        on: on!(GET changes::diff),
        query: Some(asks::<changes::Span>),
        gives: &[Content::Json(of::<changes::Differences>)],
        ..LOOK
    },
    Operation {
        path: "/v1/events",
        name: "events",
        summary: "What happens, as it happens. `Last-Event-ID` goes on behind that one.",
        on: on!(GET events::events),
        gives: &[Content::Events(of::<Event>)],
        ..LOOK
    },
    Operation {
        path: "/v1/openapi.json",
        name: "openapi",
        summary: "This description.",
        on: on!(GET openapi::serve),
        gives: &[Content::Json(of::<serde_json::Value>)],
        ..LOOK
    },
    Operation {
        path: "/metrics",
        name: "metrics",
        summary: "Counters and histograms in OpenMetrics text.",
        on: on!(GET health::exposition),
        gives: &[Content::Metrics],
        ..PUBLIC
    },
    Operation {
        path: "/healthz",
        name: "healthz",
        summary: "200 while the process lives.",
        on: on!(GET health::alive),
        ..PUBLIC
    },
    Operation {
        path: "/readyz",
        name: "readyz",
        summary: "200 while every worker runs the newest generation and nothing drains; 503 with the reason otherwise.",
        on: on!(GET health::readiness),
        also: Some(503),
        ..PUBLIC
    },
];

impl Operation {
    pub(crate) fn verb(&self) -> Verb {
        self.on.0
    }

    /// The same on a router.
    pub(super) fn add_to(
        &self,
        router: Router<Handle>,
        dress: impl FnOnce(MethodRouter<Handle>) -> MethodRouter<Handle>,
    ) -> Router<Handle> {
        router.route(self.path, dress((self.on.1)()))
    }
}
