//! Adding devices to a definition and taking them out, and nothing else.

use roxmltree::{Document, Node};

use super::{
    XmlError, alias, devices,
    facts::{check_aliases, foreign, is_made_by_ioward},
    parse,
};

/// Adds a device as the last one. [`remove`] gives the very same definition back.
///
/// # Errors
/// When the definition can't be read, or has a device of that alias.
pub fn insert(xml: &str, device: &str) -> Result<String, XmlError> {
    let new = Document::parse(device).map_err(|error| XmlError::Malformed(error.to_string()))?;
    let document = parse(xml)?;
    let devices = devices(&document)?;
    check_aliases(devices)?;
    if let Some(alias) = alias(new.root_element())
        && find(devices, alias)?.is_some()
    {
        return Err(XmlError::AlreadyThere(alias.to_owned()));
    }
    // The end tag is the last that begins there; an element that is its own end tag has no devices, and libvirt writes none.
    let whole = devices.range();
    let inside =
        xml.get(whole.clone()).and_then(|text| text.rfind("</")).ok_or(XmlError::Missing("<devices>"))?;
    let (before, after) = xml.split_at(whole.start + inside);
    let before = before.trim_end_matches(is_space);
    let gap = &xml[before.len()..xml.len() - after.len()];
    let joined = [before, "\n    ", device, gap, after].concat();
    // It may be too long now.
    parse(&joined)?;
    Ok(joined)
}

/// Takes the device with this alias out; `None` when there is none.
///
/// # Errors
/// When the definition can't be read, or ioward did not make that device.
pub fn remove(xml: &str, alias: &str) -> Result<Option<String>, XmlError> {
    let document = parse(xml)?;
    let devices = devices(&document)?;
    check_aliases(devices)?;
    let Some(device) = find(devices, alias)? else { return Ok(None) };
    if !is_made_by_ioward(device) {
        let element = device.tag_name().name().to_owned();
        return Err(XmlError::Foreign { alias: alias.to_owned(), element });
    }
    let range = device.range();
    let (before, after) = (&xml[..range.start], &xml[range.end..]);
    Ok(Some([before.trim_end_matches(is_space), after].concat()))
}

/// A device by its alias, unless that is one of ioward's and the device is not.
fn find<'a, 'input>(devices: Node<'a, 'input>, wanted: &str) -> Result<Option<Node<'a, 'input>>, XmlError> {
    let found = devices.children().find(|device| alias(*device) == Some(wanted));
    match found.and_then(foreign) {
        Some(foreign) => Err(XmlError::Foreign { alias: foreign.alias, element: foreign.element }),
        None => Ok(found),
    }
}

/// White space in XML.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
