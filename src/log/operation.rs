//! What takes part in a shared commit besides plain rows: something that looks before it writes, and has an outcome
//! of its own.
//!
//! Invariant: operations that share a transaction behave as if each had been committed alone, in the order of the
//! queue. One that is refused leaves nothing behind; an error of the database fails all that share the transaction.

use std::any::Any;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::log::transaction::Transaction;
use crate::row::OwnedEntry;

/// A change of the database with an outcome of its own.
pub trait Operation: Send + Sync + 'static {
    /// What its caller is told.
    type Answer: Send + 'static;

    /// What is being done, for errors.
    const NAME: &'static str;

    /// Does it. A refusal comes before anything was written, unless [`Operation::is_undone`] says otherwise. It may be
    /// called again if the transaction did not commit.
    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<Self::Answer>;

    /// Whether it may be refused after it has written; what it wrote is undone then, at the cost of a savepoint.
    fn is_undone(&self) -> bool {
        false
    }

    /// Bytes that it takes in the queue.
    fn bytes(&self) -> usize;
}

/// What an operation answers, whatever it is.
pub type Answer = Box<dyn Any + Send>;

/// An operation, whatever its answer.
pub trait Shared: Send + Sync {
    /// [`Operation::NAME`].
    fn name(&self) -> &'static str;
    /// Does it. The outer error is one of the transaction, the inner one a refusal, which has left nothing behind.
    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Result<Answer>>;
    /// [`Operation::bytes`].
    fn size(&self) -> usize;
}

impl<O: Operation> Shared for O {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn perform(&self, transaction: &mut Transaction<'_>) -> Result<Result<Answer>> {
        let answer = transaction.alone(self.is_undone(), |transaction| self.apply(transaction))?;
        Ok(answer.map(|answer| Box::new(answer) as Answer))
    }

    fn size(&self) -> usize {
        self.bytes()
    }
}

/// What a caller has to be committed.
#[derive(Clone)]
pub enum Work {
    /// Checked rows, all or none.
    Rows(Vec<OwnedEntry>),
    /// An operation.
    Operation(Arc<dyn Shared>),
}

/// What became of [`Work`].
pub enum Done {
    /// Rows are there.
    Rows {
        /// The id of the first; the others follow one by one.
        first_id: i64,
        /// The rows.
        rows: Vec<OwnedEntry>,
    },
    /// An operation is done.
    Answer(Answer),
}

impl Done {
    /// The answer of an operation of the type `O`.
    pub fn answer<O: Operation>(self) -> Result<O::Answer> {
        match self {
            Self::Answer(answer) => downcast::<O>(answer),
            Self::Rows { .. } => Err(Error::Internal),
        }
    }
}

impl Transaction<'_> {
    /// Runs `body`, which has an outcome of its own. The outer error is one of the transaction; the inner one is a
    /// refusal, which has left nothing behind. `is_undone`: what `body` wrote before it was refused is undone;
    /// otherwise a refusal after a write is an error of the transaction.
    pub(crate) fn alone<T>(&mut self, is_undone: bool, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<Result<T>> {
        const BEGIN: &str = "SAVEPOINT operation";
        const END: &str = "RELEASE operation";
        const UNDO: &str = "ROLLBACK TO operation";
        if is_undone {
            // They are not undone.
            self.insert_waiting()?;
            self.connection.prepare_cached(BEGIN)?.execute([])?;
        }
        let (progress, last_id) = (self.progress(), self.last_id);
        match body(self) {
            Ok(value) => {
                if is_undone {
                    self.connection.prepare_cached(END)?.execute([])?;
                }
                Ok(Ok(value))
            }
            Err(refusal) if !is_refusal(&refusal) => Err(refusal),
            Err(refusal) if is_undone => {
                for sql in [UNDO, END] {
                    self.connection.prepare_cached(sql)?.execute([])?;
                }
                self.return_to(last_id);
                Ok(Err(refusal))
            }
            Err(refusal) if self.progress() == progress => Ok(Err(refusal)),
            Err(refusal) => Err(refusal),
        }
    }
}

/// The answer of an operation of the type `O`.
pub(super) fn downcast<O: Operation>(answer: Answer) -> Result<O::Answer> {
    answer.downcast().map(|answer| *answer).map_err(|_| Error::Internal)
}

/// Whether the error is a refusal of one operation, after which the others that share the transaction go on.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Value(_)
            | Error::IllegalTransition { .. }
            | Error::RunExists { .. }
            | Error::ClaimLost { .. }
            | Error::Idempotency { .. }
            | Error::Corrupt { .. }
    )
}
