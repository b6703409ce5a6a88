//! Changes (`ioward changes`), a line each.

use ioward_api::ChangeView;

use super::{
    events::time,
    table::{Align, Table},
};

/// The changes, oldest first; why one failed stands below it.
#[must_use]
pub fn changes(changes: &[ChangeView], width: usize) -> String {
    if changes.is_empty() {
        return "no changes since the daemon was started\n".to_owned();
    }
    let mut table = Table::new([
        ("ID", Align::Left),
        ("WHAT", Align::Left),
        ("STATUS", Align::Left),
        ("STEPS", Align::Right),
        ("BEGUN", Align::Left),
    ]);
    for change in changes {
        table.row([
            change.id.to_string(),
            change.intent.clone(),
            change.status.word().to_owned(),
            format!("{}/{}", change.steps_done, change.steps),
            time(change.begun_ms),
        ]);
        if let Some(error) = &change.error {
            table.note(error);
        }
    }
    table.render(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_line_and_its_failure_another() {
        let value = r#"[{"id":"7-3","revision":4,"intent":"apply","status":"rolled-back","steps":5,"steps_done":0,
            "begun_ms":7,"ended_ms":9,"error":"cancelled"}]"#;
        let expected = "\
ID   WHAT   STATUS       STEPS  BEGUN
7-3  apply  rolled-back    0/5  1970-01-01T00:00:00.007Z
  cancelled
";
        assert_eq!(changes(&serde_json::from_str::<Vec<ChangeView>>(value).unwrap(), 80), expected);
        assert_eq!(changes(&[], 80), "no changes since the daemon was started\n");
    }
}
