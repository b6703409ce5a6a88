//! `ioward-agent bond`: keeps the bonds of this partition as the management partition says, from notice to notice.

use std::{io::Write, path::Path};

use ioward_model::VfView;

use crate::{Agent, BondError, Notice, WatchEvent, bond::Bonds, command::Failure, show::Printer};

/// Interfaces of VFs come some time after the VFs, and nobody tells: they are looked for after so many waits for a notice, a second.
const LOOK_EACH: u32 = 5;

/// Keeps bonds until interrupted; with `once`, until all is as it is to be now.
pub(crate) fn run(
    agent: &mut Agent,
    once: bool,
    printer: &mut Printer<&mut impl Write>,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<(), Failure> {
    let bonds = Bonds::new(Path::new("/sys/class/net"));
    if once {
        let (told, errors) = bonds.keep(&agent.list()?);
        told.iter().try_for_each(|what| printer.bonded(what))?;
        return if errors.is_empty() { Ok(()) } else { Err(Failure::Bond(errors)) };
    }
    let mut views = Vec::new();
    let mut known = Vec::new();
    let mut waits = 0;
    let mut watch = agent.watch();
    while !interrupted() {
        match watch.wait_a_while()? {
            Some(event) => take(&mut views, event),
            None if waits < LOOK_EACH => {
                waits += 1;
                continue;
            }
            None => {}
        }
        waits = 0;
        let (told, errors) = bonds.keep(&views);
        told.iter().try_for_each(|what| printer.bonded(what))?;
        tell_new(printer, &mut known, errors)?;
    }
    Ok(())
}

/// Tells each error once, as long as it lasts.
fn tell_new(
    printer: &mut Printer<&mut impl Write>,
    known: &mut Vec<BondError>,
    errors: Vec<BondError>,
) -> Result<(), Failure> {
    for error in errors.iter().filter(|error| !known.contains(error)) {
        printer.bonded(&error.to_string())?;
    }
    *known = errors;
    Ok(())
}

fn take(views: &mut Vec<VfView>, event: WatchEvent) {
    match event {
        WatchEvent::Present(all) => *views = all,
        WatchEvent::Notice(Notice::Added(view) | Notice::Changed(view)) => {
            views.retain(|known| known.name != view.name);
            views.push(view);
        }
        WatchEvent::Notice(Notice::Removed(name)) => views.retain(|known| known.name != name),
    }
}
