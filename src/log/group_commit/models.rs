//! Models of the queue for loom, which runs them in every interleaving of their threads (`make torture`).
//!
//! A flush is a closure here. What each model asserts beyond its own lines: no caller waits for ever (loom reports a
//! deadlock), one leads at a time, and every row is flushed once or its caller is told an error.

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use loom::thread;

use crate::log::group_commit::queue::{Done, Flushed, Job, Patience, Queue, Submitted};
use crate::log::group_commit::sync::{Arc, Mutex};

type Outcome = Result<usize, &'static str>;
type Told = Arc<Mutex<Vec<(char, Outcome)>>>;

/// A log of letters under a queue.
struct Model {
    queue: Queue<char, Outcome, (char, Told)>,
    log: Mutex<Vec<char>>,
    is_flushing: AtomicBool,
    /// Which flush fails, counted from 1; and all after it, as those of a poisoned writer do.
    fails_from: usize,
    flushes: AtomicUsize,
    /// The most that one flush found queued.
    most: AtomicUsize,
}

/// A caller that is interrupted from the time on when it has been asked so often; None: never.
struct Asked(Option<AtomicUsize>);

const PATIENT: Asked = Asked(None);

impl Patience<Outcome> for Asked {
    fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    fn ended(&self) -> Option<Outcome> {
        let left = self.0.as_ref()?;
        let _ = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        (left.load(SeqCst) == 0).then_some(Err("interrupted"))
    }
}

impl Model {
    fn new(limit: usize, fails_from: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(limit),
            log: Mutex::new(Vec::new()),
            is_flushing: AtomicBool::new(false),
            fails_from,
            flushes: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    /// What a leader does. Before it takes anything, one that waits to begin is interrupted as other waits are.
    fn flush(&self, own: Option<char>, patience: &Asked) -> Flushed<Outcome> {
        assert!(!self.is_flushing.swap(true, SeqCst), "two lead at once");
        if own.is_some()
            && let Some(interrupted) = patience.ended()
        {
            self.is_flushing.store(false, SeqCst);
            return Flushed { own: interrupted, threads: Vec::new() };
        }
        let jobs: Vec<Job<char, Outcome, (char, Told)>> = self.queue.take(|_| true);
        self.most.fetch_max(jobs.len(), SeqCst);
        let flush = self.flushes.fetch_add(1, SeqCst) + 1;
        let mut write = |row: char| {
            if flush >= self.fails_from {
                return Err("poisoned");
            }
            // An operation that is refused fails alone, and changes nothing.
            if row.is_uppercase() {
                return Err("refused");
            }
            let mut log = self.log.lock().unwrap();
            log.push(row);
            Ok(log.len())
        };
        let own = own.map_or(Ok(0), &mut write);
        let mut threads = Vec::new();
        for job in jobs {
            let outcome = write(job.rows);
            match job.done {
                Done::Thread(ticket) => threads.push((ticket, outcome)),
                Done::Waiter((name, told)) => told.lock().unwrap().push((name, outcome)),
            }
        }
        self.is_flushing.store(false, SeqCst);
        Flushed { own, threads }
    }

    /// What a blocking caller does; says what it was told.
    fn append(&self, row: char) -> Outcome {
        self.append_with(row, &PATIENT)
    }

    /// What a blocking caller does that may be interrupted.
    fn append_with(&self, row: char, patience: &Asked) -> Outcome {
        self.queue.run(row, |row| (row, 1), &mut |own| self.flush(own, patience), patience)
    }

    /// What an event loop does; false: refused.
    fn submit(&self, row: char, told: &Told) -> bool {
        self.queue.submit(row, 1, (row, Arc::clone(told)), || true) == Submitted::Queued
    }

    /// What the committer thread does.
    fn serve(&self) {
        while self.queue.wait_for_lead() {
            let _ = self.queue.lead(None, &mut |own| self.flush(own, &PATIENT));
        }
    }

    /// That the log holds what was acknowledged, each row in its place.
    fn check(&self, outcomes: &[(char, Outcome)]) {
        let log = self.log.lock().unwrap();
        for &(row, outcome) in outcomes {
            match outcome {
                Ok(place) => assert_eq!(log[place - 1], row),
                Err(_) => assert!(!log.contains(&row)),
            }
        }
        assert_eq!(log.len(), outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count());
    }
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// Each of the rows appended by a thread of its own; the first by the thread of the model.
fn append_at_once(model: &Arc<Model>, rows: &[char]) -> Vec<(char, Outcome)> {
    let others: Vec<_> = rows[1..]
        .iter()
        .map(|&row| {
            let model = Arc::clone(model);
            thread::spawn(move || (row, model.append(row)))
        })
        .collect();
    let mut outcomes = vec![(rows[0], model.append(rows[0]))];
    outcomes.extend(others.into_iter().map(|other| other.join().unwrap()));
    outcomes
}

#[test]
fn threads_hand_the_lead_over() {
    explore(|| {
        let model = Model::new(10, usize::MAX);
        let outcomes = append_at_once(&model, &['a', 'b', 'c']);
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        model.check(&outcomes);
    });
}

#[test]
fn a_thread_that_comes_back_joins_again() {
    explore(|| {
        let model = Model::new(10, usize::MAX);
        let other = Arc::clone(&model);
        let other = thread::spawn(move || vec![('b', other.append('b')), ('c', other.append('c'))]);
        let mut outcomes = vec![('a', model.append('a')), ('d', model.append('d'))];
        outcomes.extend(other.join().unwrap());
        model.check(&outcomes);
    });
}

#[test]
fn a_full_queue_holds_callers_back_until_there_is_room() {
    explore(|| {
        let model = Model::new(1, usize::MAX);
        let outcomes = append_at_once(&model, &['a', 'b', 'c', 'd']);
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        assert!(model.most.load(SeqCst) <= 1, "more was queued than there is room for");
        model.check(&outcomes);
    });
}

#[test]
fn a_failed_flush_is_told_to_all_who_share_it_and_all_after() {
    for fails_from in 1..=2 {
        explore(move || {
            let model = Model::new(10, fails_from);
            let outcomes = append_at_once(&model, &['a', 'b', 'c']);
            assert!(outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count() < outcomes.len() || fails_from == 2);
            model.check(&outcomes);
            assert_eq!(model.append('e').is_err(), model.flushes.load(SeqCst) >= fails_from);
        });
    }
}

#[test]
fn what_is_refused_fails_alone_whoever_commits_it() {
    for rows in [['R', 'b', 'c'], ['a', 'R', 'c'], ['R', 'S', 'c']] {
        explore(move || {
            let model = Model::new(10, usize::MAX);
            let outcomes = append_at_once(&model, &rows);
            for (row, outcome) in &outcomes {
                assert_eq!(outcome.is_err(), row.is_uppercase(), "{row}: {outcome:?}");
            }
            model.check(&outcomes);
            assert!(model.append('d').is_ok(), "a refusal stopped the queue");
        });
    }
}

#[test]
fn what_an_event_loop_submits_is_refused_alone() {
    explore(|| {
        let model = Model::new(10, usize::MAX);
        let told = Told::default();
        let committer = Arc::clone(&model);
        let committer = thread::spawn(move || committer.serve());
        let other = Arc::clone(&model);
        let other = thread::spawn(move || other.append('b'));
        assert!(model.submit('R', &told) && model.submit('c', &told));
        let outcome = other.join().unwrap();
        model.queue.end();
        committer.join().unwrap();
        let mut outcomes = told.lock().unwrap().clone();
        assert_eq!(outcomes.len(), 2, "told once each");
        outcomes.push(('b', outcome));
        assert!(outcomes.iter().all(|(row, outcome)| outcome.is_err() == row.is_uppercase()));
        model.check(&outcomes);
    });
}

#[test]
fn threads_and_event_loops_share_a_queue() {
    explore(|| {
        let model = Model::new(10, usize::MAX);
        let told = Told::default();
        let committer = Arc::clone(&model);
        let committer = thread::spawn(move || committer.serve());
        let other = Arc::clone(&model);
        let other = thread::spawn(move || other.append('b'));
        assert!(model.submit('a', &told));
        let outcome = other.join().unwrap();
        model.queue.end();
        committer.join().unwrap();
        let mut outcomes = told.lock().unwrap().clone();
        assert_eq!(outcomes.len(), 1, "told once");
        outcomes.push(('b', outcome));
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        model.check(&outcomes);
    });
}

#[test]
fn two_committers_serve_an_event_loop_and_end() {
    explore(|| {
        let model = Model::new(10, usize::MAX);
        let told = Told::default();
        let committers = [(); 2].map(|()| {
            let committer = Arc::clone(&model);
            thread::spawn(move || committer.serve())
        });
        assert!(model.submit('a', &told));
        assert!(model.submit('b', &told));
        model.queue.end();
        for committer in committers {
            committer.join().unwrap();
        }
        let outcomes = told.lock().unwrap().clone();
        assert_eq!(outcomes.len(), 2, "told once each");
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        model.check(&outcomes);
    });
}

#[test]
fn an_end_refuses_or_serves_a_caller_that_submits() {
    explore(|| {
        let model = Model::new(10, usize::MAX);
        let told = Told::default();
        let committer = Arc::clone(&model);
        let committer = thread::spawn(move || committer.serve());
        let (closing, row) = (Arc::clone(&model), model.submit('a', &told));
        let closing = thread::spawn(move || closing.queue.end());
        let accepted = usize::from(row) + usize::from(model.submit('b', &told));
        closing.join().unwrap();
        committer.join().unwrap();
        let outcomes = told.lock().unwrap().clone();
        assert_eq!(outcomes.len(), accepted);
        model.check(&outcomes);
    });
}

#[test]
fn an_end_leaves_no_caller_waiting_that_no_thread_serves() {
    explore(|| {
        // A thread leads while an event loop submits and the log closes: the committer may have ended by then.
        let model = Model::new(10, usize::MAX);
        let told = Told::default();
        let (leading, submitting) = (Arc::clone(&model), Arc::clone(&model));
        let committer = Arc::clone(&model);
        let committer = thread::spawn(move || committer.serve());
        let leading = thread::spawn(move || leading.append('b'));
        let theirs = Arc::clone(&told);
        let submitting = thread::spawn(move || submitting.submit('a', &theirs));
        model.queue.end();
        let accepted = submitting.join().unwrap();
        let outcome = leading.join().unwrap();
        committer.join().unwrap();
        let mut outcomes = told.lock().unwrap().clone();
        assert_eq!(outcomes.len(), usize::from(accepted));
        outcomes.push(('b', outcome));
        model.check(&outcomes);
    });
}

/// One caller is interrupted when it has been asked `after` times, beside `others` that are not.
fn interrupt(after: usize, limit: usize, others: &'static [char]) {
    explore(move || {
        let model = Model::new(limit, usize::MAX);
        let interrupted = Arc::clone(&model);
        let interrupted = thread::spawn(move || {
            let outcome = interrupted.append_with('i', &Asked(Some(AtomicUsize::new(after))));
            // A handler may use the log.
            (outcome, interrupted.append('h'))
        });
        let mut outcomes = append_at_once(&model, others);
        let (outcome, from_handler) = interrupted.join().unwrap();
        outcomes.extend([('i', outcome), ('h', from_handler)]);
        assert!(outcomes.iter().all(|(row, outcome)| *row == 'i' || outcome.is_ok()));
        model.check(&outcomes);
    });
}

#[test]
fn an_interrupted_caller_leaves_nothing_and_stops_no_other() {
    interrupt(1, 10, &['a']);
    interrupt(1, 10, &['a', 'b']);
}

#[test]
fn a_caller_is_interrupted_while_it_waits_to_begin_what_it_leads() {
    interrupt(2, 10, &['a']);
}

#[test]
fn a_caller_is_interrupted_while_it_waits_for_room() {
    interrupt(1, 1, &['a', 'b']);
}

#[test]
fn an_interrupted_leader_leaves_the_rows_of_an_event_loop_to_the_committer() {
    explore(|| {
        let model = Model::new(10, usize::MAX);
        let told = Told::default();
        let committer = Arc::clone(&model);
        let committer = thread::spawn(move || committer.serve());
        let interrupted = Arc::clone(&model);
        let interrupted = thread::spawn(move || interrupted.append_with('i', &Asked(Some(AtomicUsize::new(1)))));
        assert!(model.submit('a', &told));
        let outcome = interrupted.join().unwrap();
        model.queue.end();
        committer.join().unwrap();
        let mut outcomes = told.lock().unwrap().clone();
        assert_eq!(outcomes.len(), 1, "told once");
        assert!(outcomes[0].1.is_ok());
        outcomes.push(('i', outcome));
        model.check(&outcomes);
    });
}
