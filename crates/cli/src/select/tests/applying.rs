//! Plans, files, and leaving.

use ioward_api::ApiError;
use ioward_model::{EventKind, Options, Reason, Relaxation, Rule, Way};

use super::*;
use crate::select::{
    page::Page,
    screen::{Leaving, Mode, SMALLEST},
};

fn refused() -> CliError {
    let reason =
        Reason::new(Rule::Disruption, "that nothing that runs loses a VF", "db loses net0 (0000:01:10.0)")
            .on("0000:01:00.0".parse().unwrap())
            .for_request("web/net0");
    let way = Way { gives: vec![Relaxation::AllowDisruption] };
    CliError::Api(ApiError::refused(vec![reason], vec![way]))
}

fn event(text: &str) -> EventKind {
    data(text)
}

/// The number that the plan has once it is begun: another than the state's revision.
const BEGUN: &str = r#"{"event":"plan-started","plan":12,"steps":5}"#;
const STEP: &str =
    r#"{"event":"step-started","plan":12,"step":1,"what":{"step":"create-channel","partition":"web"}}"#;

/// The screen while its plan is carried out.
fn working() -> Screen {
    let mut screen = with_plan(Ok(plan()));
    assert!(matches!(press_for(&mut screen, "a"), Effect::Apply(applied) if *applied == plan()));
    assert!(seen(&screen).starts_with("ioward select: the plan\n"), "{}", seen(&screen));
    screen.answer(Answer::Event(event(BEGUN)));
    screen.answer(Answer::Event(event(STEP)));
    screen
}

#[test]
fn a_plan_is_seen_before_it_is_applied() {
    let mut screen = with_plan(Ok(plan()));
    looks_like(&screen, "plan");
    press(&mut screen, "xt");
    looks_like(&screen, "plan-explained");
    press(&mut screen, "<PgDn>");
    assert!(
        seen(&screen).contains("without disturbing anyone: if web/net0 does without pf"),
        "{}",
        seen(&screen)
    );
}

#[test]
fn a_refusal_says_why_and_what_would_have_to_give_way() {
    let mut screen = with_plan(Err(refused()));
    looks_like(&screen, "refused");
    assert!(press(&mut screen, "a").is_empty());
    assert_eq!(screen.note, "there is no plan to apply");
}

#[test]
fn what_is_allowed_is_planned_anew_and_an_older_plan_is_not_taken_for_it() {
    let mut screen = with_plan(Err(refused()));
    let Effect::Plan(first, _, options) = press_for(&mut screen, "o") else { panic!() };
    assert_eq!(options, Options { allow_disruption: true, ..Options::default() });
    let Effect::Plan(second, spec, options) = press_for(&mut screen, "m") else { panic!() };
    assert_eq!(options, Options { allow_disruption: true, allow_management_nic: true, force: false });
    assert_eq!(*spec, *screen.choice.spec());
    screen.answer(Answer::Plan(first, Ok(Box::new(plan()))));
    assert!(press(&mut screen, "a").is_empty(), "this is not the plan that was asked for last");
    screen.answer(Answer::Plan(second, Ok(Box::new(plan()))));
    assert!(seen(&screen).contains("o disruption: yes  m host's NICs: yes"), "{}", seen(&screen));
    assert!(matches!(press_for(&mut screen, "a"), Effect::Apply(_)));
}

#[test]
fn a_plan_without_steps_is_not_applied() {
    let mut screen = with_plan(Ok(Plan { steps: Vec::new(), disturbs: Vec::new(), ..plan() }));
    assert!(seen(&screen).contains("nothing to do"));
    assert!(press(&mut screen, "a").is_empty());
    press(&mut screen, "<Esc>");
    assert!(matches!(screen.mode, Mode::Lists));
}

#[test]
fn a_plan_that_is_done_is_looked_at_and_the_host_is_looked_at_anew() {
    let mut screen = working();
    assert!(press(&mut screen, "q<Esc><Enter>").is_empty() && screen.is_working(), "only Ctrl-C stops it");
    screen.answer(Answer::Event(event(r#"{"event":"step-done","plan":12,"step":1}"#)));
    screen.answer(Answer::Event(event(r#"{"event":"plan-done","plan":12}"#)));
    assert!(matches!(screen.answer(Answer::Ended(Ok(()))), Some(Effect::Load)));
    looks_like(&screen, "applied");
    screen.answer(Answer::Loaded(Ok(Box::new(known(HELD)))));
    press(&mut screen, "<Enter>");
    assert!(matches!(screen.mode, Mode::Lists) && !screen.choice.is_unsettled());
    assert_eq!(screen.done, ["plan 12 is applied"]);
}

#[test]
fn ctrl_c_has_a_plan_undone_and_shows_how_that_goes() {
    let mut screen = working();
    assert!(matches!(press_for(&mut screen, "<Ctrl-C>"), Effect::Undo));
    screen.answer(Answer::Event(event(r#"{"event":"step-undone","plan":12,"step":1}"#)));
    let error = "the client left".to_owned();
    let failed = CliError::PlanFailed { plan: 12, error, undone: true };
    assert!(matches!(screen.answer(Answer::Ended(Err(failed))), Some(Effect::Load)));
    looks_like(&screen, "undone");
    assert_eq!(screen.done, Vec::<String>::new());
    let mut screen = working();
    press(&mut screen, "<Ctrl-C>");
    assert!(matches!(press_for(&mut screen, "<Ctrl-C>"), Effect::Leave(Leaving::Undoing)));
}

#[test]
fn a_choice_is_saved_and_no_file_is_written_over_unasked() {
    let mut screen = screen();
    press(&mut screen, "<Enter>4<Enter>s");
    for _ in 0.."ioward".len() + ".toml".len() {
        press(&mut screen, "<Back>");
    }
    let Effect::Save { file, spec, over } = press_for(&mut screen, "a.toml<Enter>") else { panic!() };
    assert_eq!((file.to_str(), over, *spec == *screen.choice.spec()), (Some("a.toml"), false, true));
    screen.answer(Answer::Saved("a.toml".into(), Ok(false)));
    looks_like(&screen, "save-over");
    let Effect::Save { file, over, .. } = press_for(&mut screen, "x<Back><Enter>") else { panic!() };
    assert!(over, "it is the same name after all");
    screen.answer(Answer::Saved(file, Ok(true)));
    assert_eq!((screen.note.as_str(), screen.choice.is_unsettled()), ("saved in a.toml", false));
    press(&mut screen, "s");
    let Effect::Save { file, over, .. } = press_for(&mut screen, "2<Enter>") else { panic!() };
    assert_eq!((file.to_str(), over), (Some("a.toml2"), false), "yes was said to another file");
    let source = std::io::ErrorKind::PermissionDenied.into();
    screen.answer(Answer::Saved(file, Err(CliError::SpecUnwritten { file: "a.toml2".into(), source })));
    assert_eq!(screen.note, "cannot write a.toml2: permission denied");
    press(&mut screen, "<Esc>");
    assert!(matches!(screen.mode, Mode::Lists));
}

#[test]
fn nothing_that_was_chosen_is_lost_unasked() {
    let mut screen = screen();
    assert!(matches!(press_for(&mut screen, "q"), Effect::Leave(Leaving::Done)));
    press(&mut screen, "<Enter>4<Enter>");
    assert!(press(&mut screen, "q").is_empty());
    looks_like(&screen, "leave");
    assert!(press(&mut screen, "n").is_empty());
    assert!(matches!(press_for(&mut screen, "qy"), Effect::Leave(Leaving::Done)));
    // Ctrl-C left at once, and what was chosen was gone.
    assert!(press(&mut screen, "<Ctrl-C>").is_empty());
    looks_like(&screen, "leave");
    assert!(press(&mut screen, "s").is_empty() && matches!(screen.mode, Mode::Save(..)));
    press(&mut screen, "<Esc><Ctrl-C>");
    assert!(matches!(press_for(&mut screen, "<Ctrl-C>"), Effect::Leave(Leaving::Interrupted)));
}

/// The end of a message that was wider than the terminal was not to be seen.
#[test]
fn a_message_is_seen_to_its_end() {
    let mut screen = screen();
    screen.note =
        "what is wrong, where, why, and at the very end what can be done about it: ".repeat(2) + "THIS";
    assert!(seen(&screen).contains("THIS"), "{}", seen(&screen));
}

#[test]
fn a_terminal_that_is_too_small_is_told_so_and_changes_nothing() {
    let mut screen = screen();
    for size in [(79, 24), (80, 23), (1, 1), (0, 0)] {
        screen.resize(size);
        assert!(press(&mut screen, "d<Tab>dpq").is_empty() && matches!(screen.mode, Mode::Lists), "{size:?}");
        let _ = seen(&screen);
    }
    screen.resize((60, 20));
    let text = seen(&screen).replace('\n', " ");
    assert!(text.contains("80 columns and 24 lines; this one has 60 and 20."), "{text}");
    assert!(matches!(press_for(&mut screen, "<Ctrl-C>"), Effect::Leave(Leaving::Interrupted)));
    screen.resize(SMALLEST);
    assert!(seen(&screen).starts_with("ioward select: what is held\n"));
}

#[test]
fn all_keys_are_told() {
    let mut screen = screen();
    press(&mut screen, "?");
    looks_like(&screen, "keys");
    press(&mut screen, "<Esc>");
    assert!(matches!(screen.mode, Mode::Lists));
    assert!(Page::keys().lines(80).len() > 24, "it is scrolled");
}

#[test]
fn a_daemon_that_has_gone_is_told_of() {
    let mut screen = screen();
    assert!(matches!(press_for(&mut screen, "r"), Effect::Load));
    screen.answer(Answer::Loaded(Err(CliError::NotFound("the daemon has gone".into()))));
    assert!(seen(&screen).contains("the daemon has gone"));
    let Effect::Compatible(_, owner) = press_for(&mut screen, "<Tab><Down><Enter>") else { panic!() };
    screen.answer(Answer::Compatible(owner, Err(CliError::NotFound("the daemon has gone".into()))));
    assert!(seen(&screen).contains("What suits can't be told"));
}

/// Whatever is on the screen, the line that says what the keys do is all there.
#[test]
fn the_line_of_keys_fits() {
    let with_form = |keys: &str| {
        let mut screen = screen();
        press(&mut screen, keys);
        screen
    };
    let screens = [
        screen(),
        with_form("<Tab>"),
        with_form("n"),
        with_form("?"),
        with_form("<Enter>4<Enter>q"),
        with_functions(),
        with_plan(Ok(plan())),
        working(),
    ];
    for screen in screens {
        let seen = seen(&screen);
        let last = seen.lines().last().unwrap();
        let whole = ["Esc back", "? keys", "undone", "back"].iter().any(|end| last.ends_with(end));
        assert!(whole, "{last}");
    }
}
