//! Claims under clocks that tests set, and several claimants of one log.

use std::time::Duration;

use proptest::prelude::*;

use crate::base::boot::{Moment, tests::SET};
use crate::base::error::Error;
use crate::base::status::RunStatus;
use crate::log::{Log, LogConfig, query};
use crate::row::{Filter, OwnedEntry};
use crate::workflow::*;

const LEASE: i64 = 1_000;

struct Machine {
    _directory: tempfile::TempDir,
    log: Log,
    moment: Moment,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = LogConfig { segment_rows: Some(7), ..LogConfig::default() };
        let log = Log::open(&directory.path().join("logs.db"), config, &mut |_, _| Ok(())).unwrap();
        let machine = Self { _directory: directory, log, moment: Moment { boot: 5, milliseconds: 100 } };
        machine.set_clock();
        machine
    }

    fn set_clock(&self) {
        SET.set(Some(self.moment));
    }

    fn pass(&mut self, milliseconds: i64) {
        self.moment.milliseconds += milliseconds;
        self.set_clock();
    }

    /// The machine is started anew; its clock begins at 0, and its number may be any other.
    fn reboot(&mut self, boot: i64) {
        self.moment = Moment { boot, milliseconds: 0 };
        self.set_clock();
    }

    fn create(&self, run_id: &str, timestamp: i64) -> crate::Result<Run> {
        let entry = state_entry(run_id, RunStatus::Queued, Some("{}"), Some(timestamp));
        let create = Create {
            entry: (&entry).into(),
            workflow: "w".to_owned(),
            status: RunStatus::Queued,
            not_before: None,
            exist_ok: false,
        };
        Ok(self.log.perform(create, None)?.1)
    }

    fn claim(&self, owner: &str, max_attempts: Option<i64>) -> Option<RunClaim> {
        let take = Take {
            owner: owner.to_owned(),
            workflows: None,
            run_id: None,
            lease: Duration::from_millis(LEASE as u64),
            max_attempts,
        };
        let is_any_free = is_any_free(self.log.database(), &take).unwrap();
        let claim = self.log.perform(take, None).unwrap();
        assert!(is_any_free || claim.is_none(), "a run was claimed that a look did not see");
        claim
    }

    fn go(&self, claim: Option<&RunClaim>, run_id: &str, status: RunStatus) -> crate::Result<Run> {
        let entry = state_entry(run_id, status, None, Some(9_000));
        let transition =
            Transition { entry: (&entry).into(), status, expect: Vec::new(), exit_code: None, claim: claim.map(fence) };
        Ok(self.log.perform(transition, None)?.1)
    }

    fn renew(&self, claim: &RunClaim) -> crate::Result<RunClaim> {
        self.log.perform(Renew { fence: fence(claim), lease: None }, None)
    }

    fn append(&self, claim: &RunClaim) -> crate::Result<(i64, usize)> {
        let entry = state_entry(&claim.run.run_id, RunStatus::Started, Some("work"), Some(1));
        self.log.perform(AppendClaimed { entries: vec![(&entry).into()], claim: fence(claim) }, None)
    }

    fn foreign(&self, sql: &str) {
        self.log.database().write("test", None, |connection| Ok(connection.execute_batch(sql)?)).unwrap();
    }

    fn kinds(&self, run_id: &str) -> Vec<String> {
        let rows = query(&self.log, &Filter { ref_id: Some(run_id.to_owned()), ..Filter::default() }).unwrap();
        rows.iter().map(|row| row.kind().to_owned()).collect()
    }
}

fn fence(claim: &RunClaim) -> Fence {
    Fence { run_id: claim.run.run_id.clone(), token: claim.token }
}

fn is_lost<T>(outcome: &crate::Result<T>) -> bool {
    matches!(outcome, Err(Error::ClaimLost { .. }))
}

#[test]
fn runs_are_claimed_oldest_first_and_taken_over_once_their_lease_ends() {
    let mut machine = Machine::new();
    for (run_id, timestamp) in [("c", 3), ("a", 1), ("b", 1)] {
        machine.create(run_id, timestamp).unwrap();
    }
    let first = machine.claim("x", None).unwrap();
    machine.pass(1);
    assert_eq!(machine.claim("x", None).unwrap().run.run_id, "b");
    assert_eq!(first.run.run_id, "a");
    machine.pass(LEASE - 1);
    let again = machine.claim("y", None).unwrap();
    assert_eq!((again.run.run_id.as_str(), again.attempt, again.owner.as_str()), ("a", 2, "y"));
    assert!(again.token > first.token);
    assert_eq!(machine.kinds("a"), ["queued", "started", "crashed", "started"]);
    assert!(is_lost(&machine.append(&first)) && is_lost(&machine.renew(&first)));
    assert!(is_lost(&machine.go(Some(&first), "a", RunStatus::Completed)));
    machine.append(&again).unwrap();
    machine.go(Some(&again), "a", RunStatus::Completed).unwrap();
    // What was done with the claim may be repeated, and nothing else may be done with it.
    machine.go(Some(&again), "a", RunStatus::Completed).unwrap();
    assert!(is_lost(&machine.renew(&again)) && is_lost(&machine.append(&again)));
    assert!(is_lost(&machine.go(Some(&again), "a", RunStatus::Failed)));
}

#[test]
fn a_lease_is_measured_by_the_boot_and_not_by_the_clock() {
    for boot in [4, 6] {
        let mut machine = Machine::new();
        machine.create("a", 1).unwrap();
        let first = machine.claim("x", None).unwrap();
        machine.pass(LEASE - 1);
        assert!(machine.claim("y", None).is_none());
        machine.reboot(boot);
        assert_eq!(machine.claim("y", None).unwrap().attempt, 2);
        assert!(is_lost(&machine.append(&first)));
    }
}

#[test]
fn a_lease_that_ran_out_is_still_its_owners_until_another_comes() {
    let mut machine = Machine::new();
    machine.create("a", 1).unwrap();
    let claim = machine.claim("x", None).unwrap();
    machine.pass(2 * LEASE);
    machine.append(&claim).unwrap();
    machine.renew(&claim).unwrap();
    assert!(machine.claim("y", None).is_none(), "it was renewed");
    machine.pass(LEASE);
    assert!(machine.claim("y", None).is_some());
}

#[test]
fn a_run_that_fails_too_often_is_left_crashed() {
    let mut machine = Machine::new();
    machine.create("a", 1).unwrap();
    for attempt in 1..=3 {
        assert_eq!(machine.claim("x", Some(3)).unwrap().attempt, attempt);
        machine.pass(LEASE);
    }
    assert!(machine.claim("x", Some(3)).is_none());
    let run = get_run(machine.log.database(), "a").unwrap().unwrap();
    assert_eq!((run.status, run.exit_code), (RunStatus::Crashed, Some(255)));
    assert!(machine.claim("x", None).is_none(), "it is not taken over later");
}

#[test]
fn a_change_without_the_claim_waits_for_the_lease_or_kills() {
    let mut machine = Machine::new();
    machine.create("a", 1).unwrap();
    let claim = machine.claim("x", None).unwrap();
    for status in RunStatus::ALL.into_iter().filter(|status| *status != RunStatus::Killed) {
        assert!(matches!(machine.go(None, "a", status), Err(Error::IllegalTransition { .. })), "{status}");
    }
    machine.append(&claim).unwrap();
    machine.go(None, "a", RunStatus::Killed).unwrap();
    assert!(is_lost(&machine.append(&claim)));
    machine.create("b", 1).unwrap();
    let claim = machine.claim("x", None).unwrap();
    machine.pass(LEASE);
    machine.go(None, "b", RunStatus::Failed).unwrap();
    assert!(is_lost(&machine.append(&claim)));
}

#[test]
fn a_change_by_another_program_ends_the_lease() {
    for sql in [
        "UPDATE workflow_runs SET status = 'failed', timestamp = 77",
        "UPDATE workflow_runs SET status = 'started', timestamp = 77",
        "DELETE FROM workflow_runs",
        "INSERT OR REPLACE INTO workflow_runs VALUES ('a', 'w', 'queued', 5, NULL)",
        "UPDATE workflow_runs SET status = 'paused'",
    ] {
        let mut machine = Machine::new();
        machine.create("a", 1).unwrap();
        let claim = machine.claim("x", None).unwrap();
        machine.foreign(sql);
        assert!(is_lost(&machine.append(&claim)), "{sql}");
        assert!(is_lost(&machine.renew(&claim)), "{sql}");
        assert!(is_lost(&machine.go(Some(&claim), "a", RunStatus::Completed)), "{sql}");
        machine.pass(2 * LEASE);
        let next = machine.claim("y", None);
        assert_eq!(next.is_some(), sql.contains("queued"), "a run started without a claim is never taken over: {sql}");
    }
}

#[test]
fn a_run_made_again_under_an_id_counts_its_claims_anew() {
    let machine = Machine::new();
    machine.create("a", 1).unwrap();
    let claim = machine.claim("x", None).unwrap();
    machine.foreign("DELETE FROM workflow_runs");
    machine.create("a", 1).unwrap();
    let next = machine.claim("x", None).unwrap();
    assert_eq!(next.attempt, 1);
    assert!(next.token > claim.token && is_lost(&machine.append(&claim)));
}

#[test]
fn a_batch_is_undone_whole_and_its_neighbours_are_not() {
    let machine = Machine::new();
    machine.create("a", 1).unwrap();
    let row = |payload: &str| OwnedEntry::from(&state_entry("r", RunStatus::Started, Some(payload), Some(1)));
    let before = query(&machine.log, &Filter::default()).unwrap().len();
    for rows in [1, 5, 20] {
        let mut batch = Batch::default();
        batch.push(Step::Append((0..rows).map(|_| row("undone")).collect()));
        batch.push(Step::SetMeta(crate::log::SetMeta { key: "k".into(), value: "undone".into() }));
        let key = crate::log::Key::checked("undone").unwrap();
        batch.push(Step::AppendOnce(AppendOne { entry: row("keyed"), key: Some(key), claim: None }));
        let entry = state_entry("a", RunStatus::Completed, None, Some(1));
        let status = RunStatus::Completed;
        batch.push(Step::Transition(Transition {
            entry: (&entry).into(),
            status,
            expect: Vec::new(),
            exit_code: None,
            claim: None,
        }));
        assert!(matches!(machine.log.perform(batch, None), Err(Error::IllegalTransition { .. })));
    }
    assert_eq!(query(&machine.log, &Filter::default()).unwrap().len(), before);
    assert_eq!(crate::log::get_meta(machine.log.database(), "k").unwrap(), None);
    let id = machine.log.append_many(&[row("after").borrow()], None).unwrap();
    assert_eq!(id, before as i64 + 1, "a refused batch leaves no id behind");
}

/// What several claimants do, and time.
#[derive(Clone, Debug)]
enum Act {
    Create(u8),
    Claim,
    Renew(usize),
    Append(usize),
    End(usize, RunStatus),
    Release(usize),
    Kill(u8),
    Foreign(u8, RunStatus),
    Pass(i64),
    Reboot(i64),
}

fn acts() -> impl Strategy<Value = Act> {
    let status = || proptest::sample::select(RunStatus::ALL.to_vec());
    prop_oneof![
        3 => (0..4_u8).prop_map(Act::Create),
        4 => Just(Act::Claim),
        2 => (0..9_usize).prop_map(Act::Renew),
        3 => (0..9_usize).prop_map(Act::Append),
        3 => (0..9_usize, status()).prop_map(|(claim, status)| Act::End(claim, status)),
        1 => (0..9_usize).prop_map(Act::Release),
        1 => (0..4_u8).prop_map(Act::Kill),
        1 => (0..4_u8, status()).prop_map(|(run, status)| Act::Foreign(run, status)),
        3 => (0..LEASE).prop_map(Act::Pass),
        1 => (1..4_i64).prop_map(Act::Reboot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The newest claim of a run that nothing else has changed is valid, and no other ever is.
    #[test]
    fn no_two_claims_of_a_run_are_valid_at_once(acts in proptest::collection::vec(acts(), 1..40)) {
        let mut machine = Machine::new();
        let mut claims: Vec<RunClaim> = Vec::new();
        // The claim that each run is under, by the run, and when its lease ends; None: none is valid.
        let mut valid: std::collections::HashMap<String, (i64, Moment)> = Default::default();
        let mut time = 10_000_000;
        for act in acts {
            time += 1;
            let chosen = |index: usize| claims.get(index % claims.len().max(1)).cloned();
            let is_valid = |valid: &std::collections::HashMap<String, (i64, Moment)>, claim: &RunClaim| {
                valid.get(&claim.run.run_id).is_some_and(|(token, _)| *token == claim.token)
            };
            match act {
                Act::Create(run) => {
                    let run = run.to_string();
                    if machine.create(&run, time).is_ok() {
                        prop_assert!(!valid.contains_key(&run));
                    }
                }
                Act::Claim => {
                    let working: Vec<String> = (0..4)
                        .map(|run| run.to_string())
                        .filter(|run| machine.status_or_none(run) == Some(RunStatus::Started))
                        .collect();
                    if let Some(claim) = machine.claim("x", None) {
                        if working.contains(&claim.run.run_id) {
                            let end = valid.get(&claim.run.run_id).map(|(_, end)| *end);
                            prop_assert!(end.is_some(), "a run started without a claim was taken over");
                            let end = end.unwrap_or(machine.moment);
                            prop_assert!(
                                end.boot != machine.moment.boot || end.milliseconds <= machine.moment.milliseconds,
                                "a live lease was taken over"
                            );
                        }
                        prop_assert!(claims.iter().all(|other| other.token < claim.token));
                        let end = Moment { milliseconds: machine.moment.milliseconds + LEASE, ..machine.moment };
                        valid.insert(claim.run.run_id.clone(), (claim.token, end));
                        claims.push(claim);
                    }
                }
                Act::Renew(index) => {
                    let Some(claim) = chosen(index) else { continue };
                    let is_started = machine.status_or_none(&claim.run.run_id) == Some(RunStatus::Started);
                    let renewed = machine.renew(&claim);
                    prop_assert_eq!(renewed.is_ok(), is_valid(&valid, &claim) && is_started);
                    if renewed.is_ok() {
                        let end = Moment { milliseconds: machine.moment.milliseconds + LEASE, ..machine.moment };
                        valid.insert(claim.run.run_id.clone(), (claim.token, end));
                    }
                }
                Act::Append(index) => {
                    let Some(claim) = chosen(index) else { continue };
                    let appended = machine.append(&claim);
                    let is_started = machine.status_or_none(&claim.run.run_id) == Some(RunStatus::Started);
                    prop_assert_eq!(appended.is_ok(), is_valid(&valid, &claim) && is_started, "{:?}", appended);
                }
                Act::End(index, status) => {
                    let Some(claim) = chosen(index) else { continue };
                    let before = machine.kinds(&claim.run.run_id).len();
                    let changed = machine.go(Some(&claim), &claim.run.run_id, status);
                    if !is_valid(&valid, &claim) {
                        prop_assert!(is_lost(&changed));
                        prop_assert_eq!(machine.kinds(&claim.run.run_id).len(), before);
                    }
                }
                Act::Release(index) => {
                    let Some(claim) = chosen(index) else { continue };
                    let is_started = machine.status_or_none(&claim.run.run_id) == Some(RunStatus::Started);
                    let released = machine.log.perform(Release { fence: fence(&claim), delay: Duration::ZERO }, None);
                    prop_assert_eq!(released.is_ok(), is_valid(&valid, &claim) && is_started);
                    if released.is_ok() {
                        valid.remove(&claim.run.run_id);
                    }
                }
                Act::Kill(run) => {
                    let run = run.to_string();
                    let was = machine.status_or_none(&run);
                    if machine.go(None, &run, RunStatus::Killed).is_ok() && was != Some(RunStatus::Killed) {
                        valid.remove(&run);
                    }
                }
                Act::Foreign(run, status) => {
                    let run = run.to_string();
                    machine.foreign(&format!(
                        "UPDATE workflow_runs SET status = '{status}', timestamp = {time} WHERE run_id = '{run}'"
                    ));
                    if machine.status_or_none(&run).is_some() {
                        valid.remove(&run);
                    }
                }
                Act::Pass(milliseconds) => machine.pass(milliseconds),
                Act::Reboot(boot) => machine.reboot(boot),
            }
        }
    }
}

impl Machine {
    fn status_or_none(&self, run_id: &str) -> Option<RunStatus> {
        get_run(self.log.database(), run_id).unwrap().map(|run| run.status)
    }
}
