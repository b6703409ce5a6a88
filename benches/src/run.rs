//! One run of a benchmark: its rows as they come, printed, and at the end written as JSON.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use serde_json::{Value, json};

use crate::{parts::check_names, report, row::Row};

/// A run.
pub struct Run {
    bench: &'static str,
    wanted: Vec<String>,
    json: Option<PathBuf>,
    rows: Vec<Row>,
}

impl Run {
    /// The run that the arguments of this process ask for: `[--json FILE] [PART…]`, the parts being among these.
    ///
    /// # Errors
    /// When they make no sense: the status to exit with, once it has been said.
    pub fn asked_for(bench: &'static str, parts: &[&str]) -> Result<Self, ExitCode> {
        Self::of(bench, parts, env::args().skip(1)).map_err(|why| {
            eprintln!("{bench}: {why}");
            ExitCode::FAILURE
        })
    }

    fn of(
        bench: &'static str,
        parts: &[&str],
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Self, String> {
        let mut run = Self { bench, wanted: Vec::new(), json: None, rows: Vec::new() };
        while let Some(word) = arguments.next() {
            match &*word {
                "--json" => run.json = Some(arguments.next().ok_or("--json needs a file")?.into()),
                _ => run.wanted.push(word),
            }
        }
        check_names(&run.wanted.iter().map(String::as_str).collect::<Vec<_>>(), parts)?;
        Ok(run)
    }

    /// Whether a part is to be run: all are, unless some are named.
    #[must_use]
    pub fn wants(&self, part: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == part)
    }

    /// Prints a row, and keeps it.
    pub fn row(&mut self, row: Row) {
        print!("{}", report::text(&row, true));
        self.rows.push(row);
    }

    /// Says how many goals were missed, writes the JSON, and gives what the benchmark ends with: 1 when a goal was missed, when a row
    /// could not be run whole, and when there was none.
    #[must_use]
    pub fn end(self) -> ExitCode {
        let failed = self.rows.iter().filter(|row| !row.is_whole()).count();
        let missed: usize = self.rows.iter().map(Row::missed).sum();
        println!("{} rows, {failed} failed; goals missed: {missed}", self.rows.len());
        let written = self.json.as_deref().is_none_or(|path| self.write(path));
        if written && !self.rows.is_empty() && failed + missed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn write(&self, path: &Path) -> bool {
        let document = report::document(self.bench, &about(), &self.rows);
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.and_then(|()| fs::write(path, format!("{document}\n")));
        match &written {
            Ok(()) => eprintln!("the rows are in {}", path.display()),
            Err(error) => eprintln!("{}: {error}", path.display()),
        }
        written.is_ok()
    }
}

/// What it was measured on.
fn about() -> Value {
    let kernel = Command::new("uname").arg("-r").output().ok();
    let kernel = kernel.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    json!({"kernel": kernel, "cpus": thread::available_parallelism().map_or(0, usize::from)})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Role;

    fn run(words: &[&str]) -> Result<Run, String> {
        Run::of("planner", &["growth", "again"], words.iter().map(|&word| word.to_owned()))
    }

    fn row(figure: f64) -> Row {
        Row::new("again", "plan again", "ms").with_samples(Role::Ours, "ioward", vec![figure]).at_most(0, 2.0)
    }

    fn succeeds(run: Run) -> bool {
        format!("{:?}", run.end()) == format!("{:?}", ExitCode::SUCCESS)
    }

    #[test]
    fn arguments_are_parts_and_a_file() {
        let of_one = run(&["again", "--json", "/tmp/rows.json"]).unwrap();
        assert!(of_one.wants("again") && !of_one.wants("growth"));
        assert_eq!(of_one.json.as_deref(), Some(Path::new("/tmp/rows.json")));
        assert!(run(&[]).unwrap().wants("growth"));
        assert!(run(&["groth"]).is_err_and(|why| why.contains("there are growth, again")));
        assert!(run(&["--json"]).is_err());
    }

    #[test]
    fn a_run_ends_well_when_all_goals_are_met_and_there_were_some() {
        let with = |figures: &[f64]| {
            let mut run = run(&[]).unwrap();
            figures.iter().for_each(|figure| run.row(row(*figure)));
            run
        };
        assert!(succeeds(with(&[1.0, 2.0])));
        assert!(!succeeds(with(&[1.0, 3.0])), "one goal that is missed is enough");
        assert!(!succeeds(with(&[])), "nothing was measured");
        let mut failed = with(&[1.0]);
        failed.row(Row::failed("growth", "could not be run", "lspci is missing".into()));
        assert!(!succeeds(failed));
    }

    #[test]
    fn rows_are_written_as_one_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/rows.json");
        let mut run = run(&["--json", path.to_str().unwrap()]).unwrap();
        run.row(row(1.0));
        assert!(succeeds(run));
        let document: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(document["bench"], "planner");
        assert_eq!(document["rows"][0]["comparisons"][0]["verdict"], "met");
    }
}
