//! HTTP/3: what comes on a request's stream and on the control stream, and field sections.

use bytes::Bytes;
use springtide::wire::h3::Fault;
use springtide::wire::h3::control::{Control, Word};
use springtide::wire::h3::head;
use springtide::wire::h3::qpack::Section;
use springtide::wire::h3::request::{Part, Reader, Wrong};

/// What a stream said: its heads, its body, and how it ended.
type Said = (Vec<String>, Vec<u8>, Result<(), Wrong>);

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Said {
    let (mut reader, mut heads, mut body) = (Reader::default(), Vec::new(), Vec::new());
    for piece in pieces {
        let mut came = Bytes::copy_from_slice(piece);
        loop {
            match reader.step(&mut came) {
                Ok(Part::Wait) => break,
                Ok(Part::Idle) => {}
                Ok(Part::Head(head)) => heads.push(format!("{head:?}")),
                Ok(Part::Data(octets)) => {
                    assert!(!octets.is_empty());
                    body.extend_from_slice(&octets);
                }
                Ok(Part::Trailers(fields)) => heads.push(format!("{fields:?}")),
                Err(wrong) => return (heads, body, Err(wrong)),
            }
        }
        assert!(came.is_empty(), "nothing is left lying");
    }
    let end = reader.end();
    (heads, body, end)
}

/// Any octets as a request's stream, in pieces of any size: the same is read, and what is wrong is wrong either way.
pub fn h3_request(data: &[u8]) {
    let Some((&size, octets)) = data.split_first() else { return };
    let whole = read(std::iter::once(octets));
    let pieces = read(octets.chunks(usize::from(size).max(1)));
    assert_eq!((&whole.0, &whole.2), (&pieces.0, &pieces.2));
    // Of a body that is longer than it said, a part may have come before that shows.
    assert!(whole.1 == pieces.1 || whole.2.is_err());
}

/// Any octets as a client's control stream, in pieces of any size.
pub fn h3_control(data: &[u8]) {
    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<bool, Fault> {
        let (mut control, mut is_settled) = (Control::default(), false);
        for piece in pieces {
            let mut came = Bytes::copy_from_slice(piece);
            loop {
                match control.step(&mut came)? {
                    Word::Wait => break,
                    Word::Idle => assert!(is_settled, "nothing is said before the settings"),
                    Word::Settings => assert!(!std::mem::replace(&mut is_settled, true), "settings come once"),
                }
            }
        }
        Ok(is_settled)
    }
    let Some((&size, octets)) = data.split_first() else { return };
    assert_eq!(read(std::iter::once(octets)), read(octets.chunks(usize::from(size).max(1))));
}

/// Any octets as a field section: a head that is taken has nothing in it that a message may not have.
pub fn h3_head(data: &[u8]) {
    if let Ok(section) = Section::read(data) {
        section.fields().for_each(|field| assert_eq!(&field.shared()[..], field.value()));
    }
    for headers in [head::request(data).map(|head| head.headers), head::trailers(data)].into_iter().flatten() {
        for name in ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"] {
            assert!(!headers.contains_key(name), "{name}");
        }
    }
}
