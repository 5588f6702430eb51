//! Several services behind one route: that there are some, and that clients can choose among them.

use super::Checker;
use super::names::Names;
use crate::base::ids::ServiceId;
use crate::config::diag::{Code, Finding};
use crate::config::model::{Mirror, Override, Split, UserKey};
use crate::config::raw;
use crate::config::reader::Said;

pub(super) fn split(said: &Said<raw::Split>, work: &Names, checker: &mut Checker<'_>) -> Option<Split> {
    let services = said.services.as_ref()?;
    let mut sides: Vec<(ServiceId, u32)> = Vec::new();
    for (name, weight) in &services.entries {
        let index = work.resolve(&name.value, name.span, checker)?;
        sides.push((ServiceId::new(index), weight.0));
    }
    if sides.len() < 2 && said.clean {
        let hint = "name two services at least, or use `service = \"...\"`";
        checker.error(Code::BadValue, services.span, "a split has sides", hint);
    } else if sides.iter().all(|(_, weight)| *weight == 0) && said.clean {
        let hint = "give one of them a weight";
        checker.error(Code::BadValue, services.span, "no side of this split has a weight", hint);
    }
    let choice = said.choice.as_ref().and_then(|choice| choose(choice, &sides, work, checker));
    Some(Split { sides, choice })
}

fn choose(
    said: &Said<raw::Override>,
    sides: &[(ServiceId, u32)],
    work: &Names,
    checker: &mut Checker<'_>,
) -> Option<Override> {
    let (by, list) = (said.by.as_ref()?, said.values.as_ref()?);
    if matches!(by.0, UserKey::Client | UserKey::Path(..)) {
        let hint = "`header:NAME` or `cookie:NAME`; whose addresses may choose says `from`";
        checker.error(Code::BadValue, by.span, "neither an address nor a path chooses a side", hint);
    }
    let mut values = Vec::new();
    for (value, name) in &list.entries {
        if value.value.is_empty() || !value.value.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b'"') {
            let hint = "visible ASCII, without `;` and quotes";
            checker.error(Code::BadValue, value.span, format!("`{}` cannot be a value", value.value), hint);
        }
        let index = work.resolve(&name.0, name.span, checker)?;
        if let Some(side) = sides.iter().position(|(service, _)| service.index() == index) {
            values.push((value.value.clone(), side));
        } else {
            let message = format!("`{}` is no side of this split", name.0);
            let finding = Finding::error(Code::UnknownName, name.span, message);
            checker.notes.push(finding.hint("name it in `services`, with weight 0 if only this value leads there"));
        }
    }
    if values.is_empty() && said.clean && list.entries.is_empty() {
        checker.error(Code::BadValue, list.span, "no value chooses anything", "for example `{ always = \"NAME\" }`");
    }
    Some(Override { by: by.0.clone(), values, from: said.from.0.iter().map(|net| net.0).collect() })
}

pub(super) fn mirror(said: &Said<raw::Mirror>, work: &Names, checker: &mut Checker<'_>) -> Option<Mirror> {
    let name = said.service.as_ref()?;
    let service = ServiceId::new(work.resolve(&name.0, name.span, checker)?);
    if said.share.0 <= 0.0 && said.clean {
        checker.warn(Code::Doubtful, said.share.span, "nothing is copied", "leave `mirror` out instead");
    }
    Some(Mirror { service, share: said.share.0, concurrent: said.concurrent.0 })
}
