//! Many changes in one commit, all or none.

use crate::base::error::Result;
use crate::log::{DeleteMeta, Operation, SetMeta, Transaction};
use crate::row::OwnedEntry;
use crate::workflow::append::{AppendOne, append_all};
use crate::workflow::change::{Create, Transition, Upsert};
use crate::workflow::claim::Fence;
use crate::workflow::state::{Run, find};

/// Changes that are made in their order, all or none. Answers with the ids of all their rows, in that order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// What is done.
    pub steps: Vec<Step>,
    /// The claim that all of it carries.
    pub claim: Option<Fence>,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub enum Step {
    /// Rows.
    Append(Vec<OwnedEntry>),
    /// A row with a key.
    AppendOnce(AppendOne),
    /// A new run.
    Create(Create),
    /// A row, and the state of a run.
    Upsert(Upsert),
    /// A run's next state.
    Transition(Transition),
    /// A value of meta.
    SetMeta(SetMeta),
    /// A key of meta that goes.
    DeleteMeta(DeleteMeta),
}

impl Step {
    fn repeats(&self, run: &Run) -> bool {
        match self {
            Self::Upsert(upsert) => upsert.repeats(run),
            Self::Transition(transition) => transition.repeats(run),
            _ => false,
        }
    }
}

impl Batch {
    /// Adds a change at the end. Rows that follow each other are one change.
    pub fn push(&mut self, step: Step) {
        match (self.steps.last_mut(), step) {
            (Some(Step::Append(rows)), Step::Append(more)) => rows.extend(more),
            (_, step) => self.steps.push(step),
        }
    }

    /// The claim must be valid; one that has ended its run, only if that alone is repeated.
    fn check_claim(&self, transaction: &Transaction<'_>) -> Result<()> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let (connection, path) = (transaction.connection(), transaction.path());
        if let Some(Ok(found)) = find(connection, &claim.run_id, path)?
            && !self.steps.is_empty()
            && self.steps.iter().all(|step| step.repeats(&found.run))
        {
            return claim.check_change(connection, path, found.run.status).map(drop);
        }
        claim.check(connection, path).map(drop)
    }
}

impl Operation for Batch {
    type Answer = Vec<i64>;

    const NAME: &'static str = "write a batch";

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<Vec<i64>> {
        self.check_claim(transaction)?;
        let mut ids = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            match step {
                Step::Append(rows) if rows.is_empty() => {}
                Step::Append(rows) => ids.extend((append_all(transaction, rows)?..).take(rows.len())),
                Step::AppendOnce(append) => ids.push(append.apply(transaction)?.id),
                Step::Create(create) => ids.extend(create.apply(transaction)?.0),
                Step::Upsert(upsert) => ids.push(upsert.apply(transaction)?.id),
                Step::Transition(transition) => ids.push(transition.apply(transaction)?.0),
                Step::SetMeta(set) => set.apply(transaction)?,
                Step::DeleteMeta(delete) => {
                    delete.apply(transaction)?;
                }
            }
        }
        Ok(ids)
    }

    fn is_undone(&self) -> bool {
        // Rows alone cannot be refused once the claim has been looked at, nor can a single change after it has
        // written.
        self.steps.len() > 1
    }

    fn bytes(&self) -> usize {
        let bytes = |step: &Step| match step {
            Step::Append(rows) => rows.iter().map(|row| row.borrow().text_bytes() + size_of::<OwnedEntry>()).sum(),
            Step::AppendOnce(append) => append.bytes(),
            Step::Create(create) => create.bytes(),
            Step::Upsert(upsert) => upsert.bytes(),
            Step::Transition(transition) => transition.bytes(),
            Step::SetMeta(set) => set.bytes(),
            Step::DeleteMeta(delete) => delete.bytes(),
        };
        self.steps.iter().map(|step| bytes(step) + size_of::<Step>()).sum()
    }
}
