//! The source and the types of the rows that belong to workflow runs.

/// The source of the rows that belong to a workflow run.
pub(crate) const SOURCE: &str = "workflow";
/// The type of a thread's messages.
pub(crate) const MESSAGE: &str = "thread_workflow_message";
/// The type of a thread's command events.
pub(crate) const EVENT: &str = "thread_command_event";
