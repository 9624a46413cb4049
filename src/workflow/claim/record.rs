//! What is known of the newest claim of a run.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Row};

use crate::base::boot::Moment;
use crate::base::error::{Error, Result, quoted};
use crate::base::status::RunStatus;
use crate::workflow::state::{Found, Run, read};

/// A run that is its owner's until its lease runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunClaim {
    /// The run as the claim left it.
    pub run: Run,
    /// Who works on it, as the claimant calls itself.
    pub owner: String,
    /// How often the run has been claimed.
    pub attempt: i64,
    /// The id of the claim's `started` row.
    pub token: i64,
    /// When the lease ends, in milliseconds of the system's clock; for display.
    pub expires_at: i64,
}

/// The newest claim of a run.
pub(crate) struct Record {
    pub(in crate::workflow) attempt: i64,
    /// None: it is lost, and the record only counts the attempts.
    token: Option<i64>,
    owner: Option<String>,
    lease: Option<i64>,
    boot: Option<i64>,
    expires: Option<i64>,
    /// The state in which the claim left the run.
    status: Option<String>,
    timestamp: Option<i64>,
}

impl Record {
    /// Reads the columns of `run_claims` in [`SEEN`].
    fn read(row: &Row<'_>) -> Result<Option<Self>> {
        let Some(attempt) = row.get(6)? else { return Ok(None) };
        Ok(Some(Self {
            attempt,
            token: row.get(7)?,
            owner: row.get(8)?,
            lease: row.get(9)?,
            boot: row.get(10)?,
            expires: row.get(11)?,
            status: row.get(12)?,
            timestamp: row.get(13)?,
        }))
    }

    /// Whether the run is as the claim left it.
    pub(in crate::workflow) fn holds(&self, run: &Run) -> bool {
        self.token.is_some()
            && self.status.as_deref() == Some(run.status.name())
            && self.timestamp == Some(run.timestamp)
    }

    /// Whether the run works under this claim, whose lease has not run out.
    pub(in crate::workflow) fn is_live(&self, run: &Run, moment: Moment) -> bool {
        self.holds(run)
            && run.status == RunStatus::Started
            && self.boot == Some(moment.boot)
            && self.expires.is_some_and(|expires| expires > moment.milliseconds)
    }

    pub(in crate::workflow) fn owner(&self) -> &str {
        self.owner.as_deref().unwrap_or_default()
    }

    /// How long the lease is.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease.unwrap_or_default().unsigned_abs())
    }
}

/// A run and its newest claim, looked up together.
const SEEN: &str = "
    SELECT run.run_id, run.workflow, run.status, run.timestamp, run.exit_code, run.rowid,
      claim.attempt, claim.token, claim.owner, claim.lease, claim.boot, claim.expires, claim.status, claim.timestamp
    FROM (SELECT 1) LEFT JOIN workflow_runs AS run ON run.run_id = ?1 LEFT JOIN run_claims AS claim ON claim.run_id = ?1";

/// What there is under the id of a run.
pub(in crate::workflow) struct Seen {
    /// The run, if there is one; an error that names it, if its row cannot be read.
    pub(in crate::workflow) found: Option<Result<Found>>,
    /// The newest claim; None: it has never been claimed.
    pub(in crate::workflow) record: Option<Record>,
}

impl Seen {
    pub(in crate::workflow) fn look(connection: &Connection, run_id: &str, path: &Path) -> Result<Self> {
        let mut statement = connection.prepare_cached(SEEN)?;
        let mut rows = statement.query([run_id])?;
        let Some(row) = rows.next()? else { return Err(Error::Internal) };
        let found = match row.get(5)? {
            Some(rowid) => Some(read(row, path)?.map(|run| Found { rowid, run })),
            None => None,
        };
        Ok(Self { found, record: Record::read(row)? })
    }
}

/// What a call carries of its claim.
#[derive(Clone, Debug)]
pub struct Fence {
    /// The run.
    pub run_id: String,
    /// The claim's token.
    pub token: i64,
}

impl Fence {
    /// An error of the caller's if the claim is one of another run.
    pub fn check_run(&self, run_id: &str) -> Result<()> {
        if self.run_id == run_id {
            return Ok(());
        }
        Err(Error::Value(format!("the claim is one of run {}, not of {}", quoted(&self.run_id), quoted(run_id))))
    }

    /// The run and its claim, if the run works under this claim.
    pub(in crate::workflow) fn check(&self, connection: &Connection, path: &Path) -> Result<(Found, Record)> {
        self.check_change(connection, path, RunStatus::Started)
    }

    /// The same; or if the claim has brought the run to the state `next`, since that may be repeated.
    pub(in crate::workflow) fn check_change(
        &self,
        connection: &Connection,
        path: &Path,
        next: RunStatus,
    ) -> Result<(Found, Record)> {
        let Seen { found, record } = Seen::look(connection, &self.run_id, path)?;
        let found = match found {
            Some(Ok(found)) => found,
            Some(Err(_)) => return Err(self.lost("the run is in an unknown state".to_owned())),
            None => return Err(self.lost("there is no such run any more".to_owned())),
        };
        let Some(record) = record else {
            return Err(self.lost(format!("the run was changed without it, and is {}", found.run.status)));
        };
        let status = found.run.status;
        if record.token == Some(self.token) && record.holds(&found.run) {
            if status == RunStatus::Started || status == next {
                return Ok((found, record));
            }
            return Err(self.lost(format!("it has ended with the run, which is {status}")));
        }
        Err(self.lost(match record.token {
            Some(token) if token != self.token => {
                format!("{} has taken the run over (attempt {})", quoted(record.owner()), record.attempt)
            }
            _ => format!("the run was changed without it or given back, and is {status}"),
        }))
    }

    fn lost(&self, reason: String) -> Error {
        Error::ClaimLost { run_id: self.run_id.clone(), token: self.token, reason }
    }
}

/// How long a lease lasts, on the clock of leases and, for display, on the system's.
pub(super) struct Term {
    lease: i64,
    moment: Moment,
    expires: i64,
    pub(super) expires_at: i64,
}

impl Term {
    /// From now on: `moment` on the one clock, `time` on the other.
    pub(super) fn new(moment: Moment, time: i64, lease: Duration) -> Self {
        let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let (expires, expires_at) = (moment.milliseconds.saturating_add(lease), time.saturating_add(lease));
        Self { lease, moment, expires, expires_at }
    }

    /// Records a new claim of the run, whose `started` row has the id `token`; returns which attempt it is.
    pub(super) fn begin(&self, connection: &Connection, run: &Run, owner: &str, token: i64) -> Result<i64> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO run_claims
               (run_id, attempt, token, owner, lease, boot, expires, expires_at, status, timestamp, not_before)
             VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL)
             ON CONFLICT (run_id) DO UPDATE SET attempt = attempt + 1, token = excluded.token, owner = excluded.owner,
               lease = excluded.lease, boot = excluded.boot, expires = excluded.expires,
               expires_at = excluded.expires_at, status = excluded.status, timestamp = excluded.timestamp,
               not_before = NULL
             RETURNING attempt",
        )?;
        let values = (
            &run.run_id,
            token,
            owner,
            self.lease,
            self.moment.boot,
            self.expires,
            self.expires_at,
            run.status.name(),
            run.timestamp,
        );
        Ok(statement.query_row(values, |row| row.get(0))?)
    }

    /// Lets the run's claim last until the end of this term.
    pub(super) fn renew(&self, connection: &Connection, run_id: &str) -> Result<()> {
        let mut statement = connection.prepare_cached(
            "UPDATE run_claims SET lease = ?2, boot = ?3, expires = ?4, expires_at = ?5 WHERE run_id = ?1",
        )?;
        statement.execute((run_id, self.lease, self.moment.boot, self.expires, self.expires_at))?;
        Ok(())
    }
}

/// Records the state in which the claim leaves its run.
pub(in crate::workflow) fn follow(connection: &Connection, run: &Run) -> Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE run_claims SET status = ?2, timestamp = ?3 WHERE run_id = ?1")?;
    statement.execute((&run.run_id, run.status.name(), run.timestamp))?;
    Ok(())
}

/// The claim of the run is lost from now on.
pub(in crate::workflow) fn lose(connection: &Connection, run_id: &str) -> Result<()> {
    let mut statement =
        connection.prepare_cached("UPDATE run_claims SET token = NULL, status = NULL WHERE run_id = ?1")?;
    statement.execute([run_id])?;
    Ok(())
}

/// Forgets the claims of a run of the same id that was there before, if there is a `record` of them, and keeps the new one
/// from being claimed before `not_before`.
pub(in crate::workflow) fn forget(
    connection: &Connection,
    run_id: &str,
    record: Option<&Record>,
    not_before: Option<i64>,
) -> Result<()> {
    if record.is_some() {
        connection.prepare_cached("DELETE FROM run_claims WHERE run_id = ?1")?.execute([run_id])?;
    }
    if not_before.is_some() {
        let sql = "INSERT INTO run_claims (run_id, attempt, not_before) VALUES (?1, 0, ?2)";
        connection.prepare_cached(sql)?.execute((run_id, not_before))?;
    }
    Ok(())
}

/// Gives the run's claim back: it may be claimed again from `not_before` on.
pub(super) fn give_back(connection: &Connection, run_id: &str, not_before: Option<i64>) -> Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE run_claims SET token = NULL, status = NULL, not_before = ?2 WHERE run_id = ?1")?;
    statement.execute((run_id, not_before))?;
    Ok(())
}
