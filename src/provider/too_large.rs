//! What is stored in place of what is too large.
//!
//! duroxide cannot end an activity whose completion the provider refuses: it abandons it and runs it again, until it
//! is poison. A turn it does end, but without its first event, which names the instance, and without telling the
//! parent, which then waits for ever. So the provider stores the failure itself, with the size and the limit, in the
//! same step that acknowledges; and the acknowledgement is answered with the refusal, so that the runtime logs and
//! counts it as one. What it does after that finds the token used up.

use duroxide::providers::WorkItem;
use duroxide::{AppErrorKind, ErrorDetails, Event, EventKind, PoisonMessageType};

use super::Forebay;
use super::encode::{Encoder, Turn, produced};
use crate::engine::{NewMessage, TurnAck};
use crate::error::Error;
use crate::queue::LeaseNo;

/// How much is kept of an error that is too large to be kept whole.
const KEPT_BYTES: usize = 1024;

/// What takes the place of something is small, and as large as it has to be.
const ENCODER: Encoder = Encoder { record_bytes_max: usize::MAX };

impl Forebay {
    /// What a worker hands in, or, with the refusal, the failure in its place.
    pub(super) async fn completion(&self, item: WorkItem) -> Result<(NewMessage, Option<Error>), Error> {
        let (bytes, limit) = match self.encoder().completion(&item) {
            Ok(record) => return Ok((produced(item, record)?, None)),
            Err(Error::RecordTooLarge { bytes, limit, .. }) => (bytes, limit),
            Err(other) => return Err(other),
        };
        let (instance, execution_id, id, before) = match item {
            WorkItem::ActivityCompleted { instance, execution_id, id, .. } => {
                (instance, execution_id, id, None)
            }
            WorkItem::ActivityFailed { instance, execution_id, id, details } => {
                (instance, execution_id, id, Some(details))
            }
            _ => return Err(Error::invalid_input("invalid completion")),
        };
        let outcome = if before.is_some() { "error" } else { "result" };
        let activity = self.activity(&instance, execution_id, id).await;
        let what = format!("the {outcome} of activity {activity} of instance {instance}");
        let refusal = Error::RecordTooLarge { what, bytes, limit };
        tracing::warn!(%instance, activity = id, %refusal, "stored as the failure of the activity");
        let details = failure(before, &refusal, AppErrorKind::ActivityFailed);
        let item = WorkItem::ActivityFailed { instance, execution_id, id, details };
        let record = ENCODER.completion(&item)?;
        Ok((produced(item, record)?, Some(refusal)))
    }

    /// The name of an activity as its history has it, and its number in any case.
    async fn activity(&self, instance: &str, execution: u64, id: u64) -> String {
        let history = self.read_events(instance, Some(execution)).await.unwrap_or_default();
        let name = history.iter().find_map(|event| match &event.kind {
            EventKind::ActivityScheduled { name, .. } if event.event_id() == id => Some(name),
            _ => None,
        });
        name.map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
    }

    /// What a turn stores, or, with the refusal, the failure in its place.
    pub(super) async fn turn(
        &self,
        lease: LeaseNo,
        mut turn: Turn,
    ) -> Result<(TurnAck, Option<Error>), Error> {
        let refusal = match self.encoder().turn(&mut turn) {
            Ok(records) => return Ok((turn.ack(lease, records)?, None)),
            Err(refusal @ Error::RecordTooLarge { .. }) if !turn.history.is_empty() => refusal,
            // Without an event nobody can tell whose turn it is; the runtime has no such turns.
            Err(other) => return Err(other),
        };
        let instance = turn.history[0].instance_id.clone();
        tracing::warn!(%instance, %refusal, "stored as the failure of the orchestration");
        let mut failed = self.failed(&instance, turn, &refusal).await;
        let records = ENCODER.turn(&mut failed)?;
        Ok((failed.ack(lease, records)?, Some(refusal)))
    }

    /// The turn up to what is too large, and then the end of the orchestration; a parent hears of it.
    async fn failed(&self, instance: &str, turn: Turn, refusal: &Error) -> Turn {
        let encoder = self.encoder();
        let Turn { execution, mut history, messages, mut metadata, cancelled, .. } = turn;
        let before = history.iter_mut().find_map(|event| match &mut event.kind {
            EventKind::OrchestrationFailed { details } => Some(details.clone()),
            _ => None,
        });
        let details = failure(before, refusal, AppErrorKind::OrchestrationFailed);
        let next = history.first().map_or(duroxide::INITIAL_EVENT_ID, Event::event_id);
        let stays = |event: &Event| !ends(&event.kind) && encoder.takes(event);
        let kept = history.iter().take_while(|event| stays(event)).count();
        history.truncate(kept);
        let id = history.last().map_or(next, |last| last.event_id() + 1);

        // Notices of others that the runtime would send either way.
        let is_notice = |item: &WorkItem| matches!(item, WorkItem::SubOrchFailed { .. });
        let fits = |item: &WorkItem| encoder.message(item.clone(), crate::engine::Visible::Now).is_ok();
        let mut messages: Vec<_> =
            messages.into_iter().filter(|item| is_notice(item) && fits(item)).collect();
        if let Some((parent_instance, parent_execution_id, parent_id)) =
            self.parent(instance, execution, &history).await
        {
            let told = |item: &WorkItem| {
                matches!(item, WorkItem::SubOrchFailed { parent_instance: parent, parent_id: id, .. }
                    if *parent == parent_instance && *id == parent_id)
            };
            if !messages.iter().any(told) {
                let details = details.clone();
                messages.push(WorkItem::SubOrchFailed {
                    parent_instance,
                    parent_execution_id,
                    parent_id,
                    details,
                });
            }
        }

        metadata.status = Some("Failed".to_owned());
        metadata.output = Some(details.display_message());
        let kind = EventKind::OrchestrationFailed { details };
        history.push(Event::with_event_id(id, instance, execution, None, kind));
        Turn { execution, history, work: Vec::new(), messages, metadata, cancelled }
    }

    /// Who waits for this instance, and for which of its events: said by the first event of the execution.
    async fn parent(&self, instance: &str, execution: u64, turn: &[Event]) -> Option<(String, u64, u64)> {
        let stored;
        let start = match turn.first() {
            Some(first) if first.event_id() == duroxide::INITIAL_EVENT_ID => Some(first),
            _ => {
                stored = self.read_events(instance, Some(execution)).await.unwrap_or_default();
                stored.first()
            }
        };
        let EventKind::OrchestrationStarted { parent_instance, parent_id, parent_execution_id, .. } =
            &start?.kind
        else {
            return None;
        };
        let (parent, id) = (parent_instance.clone()?, (*parent_id)?);
        let parent_execution = match parent_execution_id {
            Some(execution) => *execution,
            // Started by a duroxide that did not say: the latest, as the runtime itself assumes.
            None => {
                let of = self.read_events(&parent, None).await.unwrap_or_default();
                of.last().map_or(duroxide::INITIAL_EXECUTION_ID, |event| event.execution_id)
            }
        };
        Some((parent, parent_execution, id))
    }
}

/// Whether an execution ends with an event of this kind.
fn ends(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::OrchestrationCompleted { .. }
            | EventKind::OrchestrationFailed { .. }
            | EventKind::OrchestrationContinuedAsNew { .. }
    )
}

/// The refusal as the error of what failed. An error that was too large itself stays of its kind, and keeps its
/// beginning.
fn failure(before: Option<ErrorDetails>, refusal: &Error, kind: AppErrorKind) -> ErrorDetails {
    let beginning = |message: &str| format!("{refusal}; it begins: {}", beginning_of(message));
    match before {
        Some(ErrorDetails::Poison { attempt_count, max_attempts, message_type, message })
            if !matches!(message_type, PoisonMessageType::FailedDeserialization { .. }) =>
        {
            let message = beginning(&message);
            ErrorDetails::Poison { attempt_count, max_attempts, message_type, message }
        }
        Some(ErrorDetails::Infrastructure { operation, message, retryable }) => {
            let (operation, message) = (beginning_of(&operation).to_owned(), beginning(&message));
            ErrorDetails::Infrastructure { operation, message, retryable }
        }
        Some(ErrorDetails::Application { kind: before, message, retryable }) => {
            let kind = if before == AppErrorKind::Panicked { before } else { kind };
            ErrorDetails::Application { kind, message: beginning(&message), retryable }
        }
        _ => ErrorDetails::Application { kind, message: refusal.to_string(), retryable: false },
    }
}

fn beginning_of(text: &str) -> &str {
    // Where a character ends.
    (0..=KEPT_BYTES.min(text.len())).rev().find_map(|end| text.get(..end)).unwrap_or_default()
}
