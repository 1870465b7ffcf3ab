//! Owns the lists of variants that the samples have to cover.
//!
//! Invariant: a list and its exhaustive `match` are one and the same text, so a variant added upstream
//! stops the build of the tests too, and once it is named here its sample is asked for.
//!
//! Rejected: counting the variants. The number says that one is missing, not which.

use duroxide::providers::WorkItem;
use duroxide::{AppErrorKind, ConfigErrorKind, ErrorDetails, EventKind, PoisonMessageType};

use super::samples;

/// The names of an enum's variants.
pub(super) trait Variants {
    const ALL: &'static [&'static str];

    fn name(&self) -> &'static str;
}

macro_rules! variants {
    ($Enum:ident: $($Variant:ident),* $(,)?) => {
        impl Variants for $Enum {
            const ALL: &'static [&'static str] = &[$(stringify!($Variant)),*];

            fn name(&self) -> &'static str {
                match self {
                    $($Enum::$Variant { .. } => stringify!($Variant)),*
                }
            }
        }
    };
}

variants! { EventKind:
    OrchestrationStarted, OrchestrationCompleted, OrchestrationFailed, ActivityScheduled, ActivityCompleted,
    ActivityFailed, ActivityCancelRequested, TimerCreated, TimerFired, ExternalSubscribed, ExternalEvent,
    OrchestrationChained, SubOrchestrationScheduled, SubOrchestrationCompleted, SubOrchestrationFailed,
    SubOrchestrationCancelRequested, OrchestrationContinuedAsNew, OrchestrationCancelRequested,
    ExternalSubscribedCancelled, QueueSubscribed, QueueEventDelivered, QueueSubscriptionCancelled,
    CustomStatusUpdated, KeyValueSet, KeyValueCleared, KeyValuesCleared,
}
variants! { WorkItem:
    StartOrchestration, ActivityExecute, ActivityCompleted, ActivityFailed, TimerFired, ExternalRaised,
    SubOrchCompleted, SubOrchFailed, CancelInstance, ContinueAsNew, QueueMessage,
}
variants! { ErrorDetails: Infrastructure, Configuration, Application, Poison }
variants! { PoisonMessageType: Orchestration, Activity, FailedDeserialization }
variants! { ConfigErrorKind: Nondeterminism }
variants! { AppErrorKind: ActivityFailed, OrchestrationFailed, Panicked, Cancelled }

/// The names of every variant that occurs in the samples, by enum.
pub(super) fn occurring() -> [(&'static [&'static str], Vec<&'static str>); 6] {
    fn of<'a, V: Variants + 'a>(
        values: impl Iterator<Item = &'a V>,
    ) -> (&'static [&'static str], Vec<&'static str>) {
        (V::ALL, values.map(V::name).collect())
    }
    let details = samples::details();
    let poison = details.iter().filter_map(|details| match details {
        ErrorDetails::Poison { message_type, .. } => Some(message_type),
        _ => None,
    });
    let application = details.iter().filter_map(|details| match details {
        ErrorDetails::Application { kind, .. } => Some(kind),
        _ => None,
    });
    let configuration = details.iter().filter_map(|details| match details {
        ErrorDetails::Configuration { kind, .. } => Some(kind),
        _ => None,
    });
    let kinds = samples::kinds();
    let items = samples::items();
    [of(kinds.iter()), of(items.iter()), of(details.iter()), of(poison), of(application), of(configuration)]
}
