//! Evaluates a sample set: every sample counts once.

use super::signals::Stop;
use crate::data::{Loader, SampleSet};
use crate::device::Clock;
use crate::error::Result;
use crate::layers::Mode;
use crate::placement::Variant;
use crate::program::Session;
use crate::report::RunEvent;
use std::sync::Arc;

/// Evaluates a sample set after `step` updates; `None` if `stop` was requested first.
///
/// # Errors
/// When the data cannot be read or a step fails.
pub fn evaluate(
    session: &mut Session,
    split: &Arc<SampleSet>,
    batch: usize,
    step: u64,
    stop: &Stop,
) -> Result<Option<RunEvent>> {
    let mut loader = Loader::eval(split, session.preparer(), batch)?;
    let (mut loss, mut top1, mut top5, mut images) = (0.0, 0.0, 0.0, 0.0);
    let mut stopped = false;
    loop {
        // Submitted batches finish: the session must be idle when it is read or written.
        stopped |= stop.requested();
        let next = if stopped { None } else { loader.next_batch()? };
        if let Some(batch) = next {
            let variant = Variant { mode: Mode::Eval, batch: batch.rows, update: false };
            let clock = Clock { step, ..Clock::default() };
            session.submit(variant, batch, clock)?;
            if session.under_way() < session.depth() {
                continue;
            }
        } else if session.under_way() == 0 {
            break;
        }
        let metrics = session.finish()?;
        loss += metrics.loss * metrics.rows;
        top1 += metrics.top1;
        top5 += metrics.top5;
        images += metrics.rows;
    }
    Ok((!stopped).then(|| RunEvent::Eval {
        step,
        split: split.name.to_string(),
        loss: loss / images,
        top1: top1 / images,
        top5: top5 / images,
        images: images as u64,
    }))
}
