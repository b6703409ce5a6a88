//! A plan under way: which of its steps may go on, and what is written down before they do.
//!
//! ```text
//!   ready ──> find ──> found ──────────> written down as begun ──> carry out ──> carried out ──> written down as done
//!                      of a note: ─────────────────────────────────────────────> carried out
//! ```
//!
//! A commit to the disk takes longer than most steps, so what has come to a stop on an adapter is written down in one, once nothing is
//! under way there that comes to a stop in a moment. What is under way for long, or waits for somebody, keeps nothing from being written,
//! nor does an adapter that does not answer keep what was done on others.
//!
//! Steps that take turns are written down as begun together, and carried out one after the other.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use ioward_model::{EventKind, Outcome, Plan, Policy, Step};
use ioward_pci::Bdf;
use tokio::time::Instant;

use crate::{
    error::{ImpError, error_chain},
    executor::{Executed, Execution, Executor},
    order::Order,
    ownership::{Kept, Together},
    rollback::{Carried, Left},
    step::Failure,
};

/// So many steps have begun and are not written down as done at most: each may be a machine that starts.
const AT_ONCE: usize = 8;

/// A step that has come to a stop.
struct Stopped<'a> {
    carried: Carried<'a>,
    /// What is carried out.
    step: Cow<'a, Step>,
    stop: Stop,
    /// Keeps operations of partitions away until it is written down.
    kept_out: Vec<Kept>,
    begun: Instant,
}

/// Where a step has come to a stop.
enum Stop {
    /// All that has to be known before it is found: it is carried out once that is written down.
    Found,
    /// It is carried out: it is done once that is written down.
    CarriedOut,
    /// It has failed: why, with all causes.
    Failed(String),
}

/// A plan under way.
pub(crate) struct Course<'e, 'a> {
    executor: &'e Executor,
    execution: &'e Execution<'a>,
    plan: &'a Plan,
    policy: Policy,
    order: Order,
    together: &'e Together,
    short: &'e Short,
    /// All in this one task: nothing goes on when it does not, and where nothing waits, the order is always the same.
    under_way: FuturesUnordered<BoxFuture<'e, Stopped<'a>>>,
    /// To be written down.
    stopped: Vec<Stopped<'a>>,
    /// Written down as begun; it is not their turn.
    held_up: Vec<Stopped<'a>>,
    left: Left,
    done: Vec<Carried<'a>>,
    in_doubt: Vec<Carried<'a>>,
    failures: Vec<(Option<&'a Step>, String)>,
}

impl Executor {
    /// Carries out the steps of a plan, as its policy says.
    pub(crate) async fn execute<'a>(&self, execution: &Execution<'a>) -> Executed<'a> {
        let (together, short) = (Together::default(), Short::default());
        let (plan, policy) = (execution.plan, execution.plan.intent.policy());
        let mut course = Course {
            executor: self,
            execution,
            plan,
            policy,
            order: Order::of(&plan.steps, policy),
            together: &together,
            short: &short,
            under_way: FuturesUnordered::new(),
            stopped: Vec::new(),
            held_up: Vec::new(),
            left: Left::default(),
            done: Vec::new(),
            in_doubt: Vec::new(),
            failures: Vec::new(),
        };
        course.run().await;
        let Course { mut done, in_doubt, failures, .. } = course;
        done.extend(in_doubt);
        Executed { done, failures }
    }
}

impl<'e, 'a> Course<'e, 'a> {
    async fn run(&mut self) {
        loop {
            self.begin();
            let (later, now) = std::mem::take(&mut self.stopped)
                .into_iter()
                .partition(|stopped| self.short.is_under_way(stopped.carried.step));
            self.stopped = later;
            if self.write_down(now) {
                continue;
            }
            match self.under_way.next().await {
                Some(stopped) => self.take_in(stopped),
                None => break,
            }
        }
        // Noted as begun, and nothing has been done: nothing is to be looked at later.
        for Stopped { carried, .. } in self.held_up.drain(..) {
            self.execution.journal.failed(carried.number);
        }
    }

    /// Whether anything more is to be done.
    fn goes_on(&mut self) -> bool {
        if self.policy == Policy::BestEffort {
            return true;
        }
        if self.failures.is_empty() && self.execution.progress.is_cancelled() {
            self.failures.push((None, ImpError::Cancelled.to_string()));
        }
        self.failures.is_empty()
    }

    /// Begins the steps that can.
    fn begin(&mut self) {
        while self.under_way.len() + self.stopped.len() + self.held_up.len() < AT_ONCE
            && self.order.has_ready()
            && self.goes_on()
        {
            let Some((n, step)) = self.order.begin().and_then(|n| Some((n, self.plan.steps.get(n)?))) else {
                break;
            };
            if self.is_left(n, step) {
                continue;
            }
            let (plan, number) = (self.execution.number, n + 1);
            let what = Box::new(step.clone());
            self.execution.progress.tell(EventKind::StepStarted { plan, number, what });
            let carried = Carried { number, step, outcome: Outcome::default(), noted: None, in_doubt: false };
            let stopped = Stopped {
                carried,
                step: Cow::Borrowed(step),
                stop: Stop::Found,
                kept_out: Vec::new(),
                begun: Instant::now(),
            };
            self.under_way.push(Box::pin(find(
                self.executor,
                self.policy,
                self.together,
                self.short,
                stopped,
            )));
        }
    }

    /// Whether a step is left, since it rests on what was left. Those after it need not wait for it.
    fn is_left(&mut self, n: usize, step: &Step) -> bool {
        let is_left = self.left.holds_up(step);
        if is_left {
            self.left.add(step);
            self.order.carried_out(n);
            self.order.done(n);
        }
        is_left
    }

    /// Takes in a step that has come to a stop.
    fn take_in(&mut self, stopped: Stopped<'a>) {
        match stopped.stop {
            Stop::Found => self.stopped.push(stopped),
            Stop::CarriedOut => {
                self.order.carried_out(stopped.carried.number - 1);
                self.stopped.push(stopped);
                self.let_go_on();
            }
            Stop::Failed(ref error) => {
                let error = error.clone();
                self.fail(stopped, error);
            }
        }
    }

    fn fail(&mut self, Stopped { carried, begun, .. }: Stopped<'a>, error: String) {
        let (n, step, plan) = (carried.number - 1, carried.step, self.execution.number);
        self.executor.counters.step(step, false, begun.elapsed());
        let told = EventKind::StepFailed { plan, number: carried.number, error: error.clone() };
        self.execution.progress.tell(told);
        self.failures.push((Some(step), error));
        match self.policy {
            Policy::AllOrNothing => self.in_doubt.extend(carried.in_doubt.then_some(carried)),
            Policy::BestEffort => {
                self.left.add(step);
                self.order.carried_out(n);
                self.order.done(n);
                self.let_go_on();
            }
        }
    }

    /// Writes down what has come to a stop. False where there is nothing to be written.
    fn write_down(&mut self, stopped: Vec<Stopped<'a>>) -> bool {
        let (done, mut found): (Vec<_>, Vec<_>) =
            stopped.into_iter().partition(|stopped| matches!(stopped.stop, Stop::CarriedOut));
        // Whoever cancels a plan when nothing of it is left to be done is late.
        if !found.is_empty() && !self.goes_on() {
            found.clear();
        }
        if done.is_empty() && found.is_empty() {
            return false;
        }
        let before = self.done.len();
        let ends = (before + done.len() == self.plan.steps.len()).then_some(self.plan);
        let written = self.execution.journal.write_down(
            &found.iter().map(|it| &it.carried).collect::<Vec<_>>(),
            before,
            &done.iter().map(|it| (&*it.step, &it.carried)).collect::<Vec<_>>(),
            ends,
        );
        if let Err(error) = written {
            let error = error_chain(&error);
            for mut stopped in done {
                // A step that is not written down must not be done either.
                stopped.carried.in_doubt = true;
                self.fail(stopped, error.clone());
            }
            for stopped in found {
                self.execution.journal.failed(stopped.carried.number);
                self.fail(stopped, error.clone());
            }
            return true;
        }
        for Stopped { carried, step, kept_out, begun, .. } in done {
            drop(kept_out);
            self.executor.counters.step(carried.step, true, begun.elapsed());
            self.executor.runner.tell_partitions(&step);
            self.order.done(carried.number - 1);
            let (plan, note) = (self.execution.number, carried.outcome.note.clone());
            self.execution.progress.tell(EventKind::StepDone { plan, number: carried.number, note });
            self.done.push(carried);
        }
        self.held_up.extend(found);
        self.let_go_on();
        true
    }

    /// Has those carried out that are written down as begun, and whose turn it is.
    fn let_go_on(&mut self) {
        let its_turn = |course: &Self| {
            let mut held_up = course.held_up.iter();
            held_up.position(|stopped| course.order.may_be_carried_out(stopped.carried.number - 1))
        };
        while let Some(at) = its_turn(self).filter(|_| self.goes_on()) {
            let stopped = self.held_up.remove(at);
            let Carried { number, step, .. } = stopped.carried;
            if self.is_left(number - 1, step) {
                self.execution.journal.failed(number);
                continue;
            }
            let carried_out = carry_out(self.executor, self.execution, self.together, self.short, stopped);
            self.under_way.push(Box::pin(carried_out));
        }
    }
}

/// By adapter, how many steps are under way that come to a stop in a moment; `None`: steps that are about none. They count themselves.
#[derive(Default)]
struct Short(Mutex<BTreeMap<Option<Bdf>, usize>>);

impl Short {
    /// Counts a step for as long as the result is there.
    fn count(&self, step: &Step) -> impl Drop + Send + use<'_> {
        let adapter = step.subject().adapter();
        *self.lock().entry(adapter).or_default() += 1;
        Counted { among: self, adapter }
    }

    /// Whether one is under way on the adapter of a step.
    fn is_under_way(&self, step: &Step) -> bool {
        self.lock().contains_key(&step.subject().adapter())
    }

    /// The guarded value is whole after every statement, so a poisoned mutex is as good as any.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<Bdf>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted<'e> {
    among: &'e Short,
    adapter: Option<Bdf>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut all = self.among.lock();
        if let Some(count) = all.get_mut(&self.adapter) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.adapter);
            }
        }
    }
}

/// Finds what has to be known before a step. One that is a note is carried out, too.
async fn find<'a>(
    executor: &Executor,
    policy: Policy,
    together: &Together,
    short: &Short,
    mut stopped: Stopped<'a>,
) -> Stopped<'a> {
    let carried = &mut stopped.carried;
    // Whoever is kept out may be waiting for a lock that is another step's until that is written down: this may take its time.
    stopped.kept_out.extend(executor.runner.keep_out(carried.step, together).await);
    let _short = short.count(carried.step);
    carried.noted = executor.notes.look(|state| state.noted_for(carried.step));
    match executor.runner.found_before(carried.step).await {
        Ok(found) => carried.outcome = found,
        Err(error) => {
            executor.watch_stuck(carried.step, &error);
            stopped.stop = Stop::Failed(error_chain(&error));
            return stopped;
        }
    }
    carried.outcome.was_in_doubt = executor.notes.look(|state| state.is_in_doubt(carried.step));
    if policy == Policy::BestEffort {
        stopped.step = as_noted_now(carried);
    }
    if carried.step.meaning().is_a_note {
        match executor.runner.do_step(&stopped.step, carried.outcome.clone()).await {
            Ok(outcome) => (carried.outcome, stopped.stop) = (outcome, Stop::CarriedOut),
            Err(Failure { error, .. }) => stopped.stop = Stop::Failed(error_chain(&error)),
        }
    }
    stopped
}

/// Carries out a step that is written down as begun.
async fn carry_out<'a>(
    executor: &Executor,
    execution: &Execution<'_>,
    together: &Together,
    short: &Short,
    mut stopped: Stopped<'a>,
) -> Stopped<'a> {
    let Stopped { carried, step, .. } = &mut stopped;
    let meaning = step.meaning();
    let _short = meaning.is_short.then(|| short.count(step));
    let gives_up = async {
        if meaning.may_be_given_up {
            execution.progress.cancelled().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        result = executor.runner.do_step(step, carried.outcome.clone()) => result,
        // Whatever the guest does later all the same is noticed.
        () = gives_up => Err(ImpError::Cancelled.into()),
    };
    match result {
        Ok(outcome) => {
            carried.outcome = outcome;
            let kept_out = executor.runner.keep_out_at_last(step, together).await;
            stopped.kept_out.extend(kept_out);
            stopped.stop = Stop::CarriedOut;
        }
        Err(Failure { error, in_doubt }) => {
            carried.in_doubt = in_doubt;
            if in_doubt {
                executor.watch_stuck(step, &error);
            } else {
                execution.journal.failed(carried.number);
            }
            stopped.stop = Stop::Failed(error_chain(&error));
        }
    }
    stopped
}

/// A step that repairs settings, as of now: whatever a partition has changed since it was planned holds.
fn as_noted_now<'a>(carried: &Carried<'a>) -> Cow<'a, Step> {
    match (carried.step, &carried.noted, &carried.outcome.settings_before) {
        (Step::ConfigureVf { vf, to }, Some(noted), Some(present)) => {
            Cow::Owned(Step::ConfigureVf { vf: *vf, to: noted.lost_since(to, present) })
        }
        (step, ..) => Cow::Borrowed(step),
    }
}
