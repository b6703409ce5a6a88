//! What is asked for and is not there is refused before anything is begun: a benchmark takes minutes, and `bench lab` boots a machine.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

/// The exit status, and what is said on stderr.
fn told(program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing is measured");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// As `cargo xtask bench lab` asks before it boots level 1.
#[test]
fn an_unknown_row_of_the_lab_is_refused_anywhere() {
    let lab = env!("CARGO_BIN_EXE_bench-lab");
    for arguments in [&["--check", "bind", "blind"][..], &["--quick", "blind"]] {
        let (status, said) = told(lab, arguments);
        assert_eq!(status, Some(1));
        assert!(said.contains("there is no row blind; there are rest, make, "), "{said}");
    }
    assert_eq!(told(lab, &["--check"]), (Some(0), String::new()));
    assert_eq!(told(lab, &["--check", "rest", "bind"]), (Some(0), String::new()));
    assert!(told(lab, &["--bound", "soon"]).1.contains("a number of seconds"));
}

#[test]
fn an_unknown_part_of_any_other_benchmark_is_refused() {
    for (program, part) in [
        (env!("CARGO_BIN_EXE_planner"), "growth"),
        (env!("CARGO_BIN_EXE_identify"), "identify"),
        (env!("CARGO_BIN_EXE_daemon"), "restart"),
        (env!("CARGO_BIN_EXE_api"), "inventory"),
        (env!("CARGO_BIN_EXE_channel"), "operation"),
    ] {
        let (status, said) = told(program, &["no-such-part"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("there is no row no-such-part; there are ") && said.contains(part), "{said}");
        assert!(told(program, &[part, "--json"]).1.contains("--json needs a file"));
    }
}
