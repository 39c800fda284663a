//! Streams of bytes, messages and visits: what clients and backend do with them. Opens no socket itself.

mod bulk;
mod visits;

use crate::bench::args::Words;
use crate::bench::generator::messages::{Messages, Plain};
use crate::bench::generator::{self, idle, load};

/// Run one load: `shape= connections= warm_ms= measure_ms=`.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let words = Words::read(args)?;
    let connections: usize = words.get("connections")?;
    let shape: String = words.get("shape")?;
    generator::run(
        || Messages::<Plain>::new(1, false),
        |net| match shape.as_str() {
            "down" => load(net, bulk::Bulk::new(true, connections), &words),
            "up" => load(net, bulk::Bulk::new(false, connections), &words),
            "messages" => load(net, Messages::<Plain>::new(connections, true), &words),
            "visits" => load(net, visits::Visits::new(connections), &words),
            "idle" => idle(net, Messages::<Plain>::new(1, false), connections),
            _ => Err(format!("there is no shape `{shape}`")),
        },
    )
}
