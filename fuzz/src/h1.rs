//! HTTP/1's targets: octets as heads and bodies, held against httparse, and what is written read back.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use springtide::wire::h1::body::{Decoder, Piece};
use springtide::wire::h1::{FIELDS, Flaw, HEAD_BYTES, Length, head, write};

/// Any octets as a request: what we take, httparse takes, and reads the same in it; how it is framed is what its fields
/// say, read once more; and passed on it is still the same.
pub fn h1_request(data: &[u8]) {
    let Some(end) = end(data) else { return };
    let Ok(ours) = head::request(&Bytes::copy_from_slice(&data[..end])) else { return };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut theirs = httparse::Request::new(&mut fields);
    assert_eq!(theirs.parse(&data[..end]), Ok(httparse::Status::Complete(end)), "httparse takes it");
    assert_eq!(theirs.method, Some(ours.method.as_str()));
    // Of a target in absolute form, http gives an empty path back as `/`.
    let said = theirs.path.unwrap_or_default();
    assert!(ours.target == *said || ours.target.scheme().is_some(), "{said:?} is not {}", ours.target);
    assert_eq!(theirs.version, Some(u8::from(ours.version == Version::HTTP_11)));
    alike(&ours.headers, theirs.headers);
    match framing(theirs.headers) {
        None => assert_eq!(ours.length, Length::None),
        Some(length) => assert_eq!(ours.length, length, "one framing, and this one"),
    }
    assert!(ours.length != Length::Chunked || ours.version == Version::HTTP_11);
    let mut out = Vec::new();
    let target = ours.target.path_and_query().map_or("/", |target| target.as_str());
    write::request(&mut out, &ours.method, target, &ours.headers, |_| (), ours.length);
    assert_eq!(head::end(&out, 0), Ok(Some(out.len())), "nothing of it ends the head");
    // A target without a path has to be given one before it is sent (`proxy::stages`).
    if target.starts_with('/') {
        let Ok(again) = head::request(&Bytes::from(out)) else { panic!("what was read can be written") };
        assert_eq!((again.method, again.length), (ours.method, ours.length));
        assert_eq!(again.target.to_string(), target);
        assert_eq!(less_framing(again.headers), less_framing(ours.headers));
    }
}

/// Any octets as a response, to one of two methods: as with requests.
pub fn h1_response(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let method = if choice & 1 == 0 { Method::GET } else { Method::HEAD };
    let Some(end) = end(data) else { return };
    let Ok(ours) = head::response(&Bytes::copy_from_slice(&data[..end]), &method) else { return };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut theirs = httparse::Response::new(&mut fields);
    assert_eq!(theirs.parse(&data[..end]), Ok(httparse::Status::Complete(end)), "httparse takes it");
    assert_eq!(theirs.code, Some(ours.status.as_u16()));
    alike(&ours.headers, theirs.headers);
    let has_none =
        method == Method::HEAD || ours.status.is_informational() || [204, 304].contains(&ours.status.as_u16());
    let said = framing(theirs.headers).unwrap_or(Length::UntilClose);
    assert_eq!(ours.length, if has_none { Length::None } else { said });
    assert!(!ours.keeps || ours.length != Length::UntilClose);
    let mut out = Vec::new();
    write::response(
        &mut out,
        ours.status,
        &ours.headers,
        ours.length,
        write::Keeps::Yes,
        b"Thu, 01 Jan 1970 00:00:00 GMT",
    );
    assert_eq!(head::end(&out, 0), Ok(Some(out.len())), "nothing of it ends the head");
    // With a date of ours it may have a field too many.
    if let Ok(again) = head::response(&Bytes::from(out), &method) {
        assert_eq!((again.status, again.length), (ours.status, ours.length));
    } else {
        assert_eq!(ours.headers.len(), FIELDS);
    }
}

/// Any octets as a chunked body: the same whatever pieces it comes in, and written anew it is the same body.
pub fn h1_chunked(data: &[u8]) {
    let (sizes, octets) = data.split_at(data.len().min(4));
    let whole = read(octets, &[255]);
    assert_eq!(read(octets, sizes), whole, "the same, however it is cut");
    assert_eq!(read(octets, &[1]), whole, "the same, octet by octet");
    let Ok(Some((body, taken, trailers))) = whole else { return };
    assert!(taken <= octets.len() && body.len() < taken);
    let mut out = Vec::new();
    for part in body.chunks(usize::from(sizes.first().copied().unwrap_or(1)).max(1)) {
        write::chunk(&mut out, part.len());
        out.extend(part);
        out.extend(b"\r\n");
    }
    write::last_chunk(&mut out, trailers.as_ref());
    assert_eq!(read(&out, sizes), Ok(Some((body, out.len(), trailers))));
}

/// Any method, target and fields that our types can hold: written as a request and as a response, they are one head each,
/// and read the same, less what framed them.
pub fn h1_written(data: &[u8]) {
    let mut lines = data.split(|&b| b == b'\n');
    let first = lines.next().unwrap_or_default();
    let method = first.split(|&b| b == b' ').next().and_then(|m| Method::from_bytes(m).ok()).unwrap_or(Method::PUT);
    let mut headers = HeaderMap::new();
    for line in lines.take(FIELDS - 3) {
        let (name, value) = line.split_at(line.iter().position(|&b| b == b':').unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    for length in [Length::None, Length::Exact(data.len() as u64), Length::Chunked] {
        let mut out = Vec::new();
        write::request(&mut out, &method, "/", &headers, |_| (), length);
        let expected = if out.len() > HEAD_BYTES { Err(Flaw::LongHead) } else { Ok(Some(out.len())) };
        assert_eq!(head::end(&out, 0), expected, "one head");
        let Ok(read) = head::request(&Bytes::from(out)) else {
            assert!(method.as_str().len() > 32, "{method} cannot be read");
            return;
        };
        assert_eq!((&read.method, read.length), (&method, length));
        assert_eq!(less_framing(read.headers), less_framing(headers.clone()));
        let mut out = Vec::new();
        write::response(&mut out, StatusCode::OK, &headers, length, write::Keeps::No, b"now");
        let Ok(read) = head::response(&Bytes::from(out), &Method::GET) else {
            panic!("a response that cannot be read")
        };
        match length {
            // It may tell a length all the same, where there is no body: to HEAD.
            Length::None => assert!(!matches!(read.length, Length::Chunked)),
            length => assert_eq!(read.length, length),
        }
    }
}

/// Where a head ends in `data`: in the same place however it comes in.
fn end(data: &[u8]) -> Option<usize> {
    let whole = head::end(data, 0);
    for step in [1, 7] {
        let mut seen = 0;
        let mut found = Ok(None);
        while found == Ok(None) && seen < data.len() {
            let come = (seen + step).min(data.len());
            found = head::end(&data[..come], seen);
            seen = come;
        }
        // Beyond the limit it depends on what came together: an end, or a line that has none.
        assert!(found == whole || data.len() >= HEAD_BYTES, "{found:?} in steps of {step}, {whole:?} at once");
    }
    whole.ok().flatten()
}

fn alike(ours: &HeaderMap, theirs: &[httparse::Header<'_>]) {
    assert_eq!(ours.len(), theirs.len());
    for field in theirs {
        let mut same = ours.get_all(field.name).iter();
        assert!(same.any(|value| value.as_bytes() == field.value.trim_ascii()), "{}: {:?}", field.name, field.value);
    }
}

/// What fields say of the length, read in the plainest way there is.
fn framing(fields: &[httparse::Header<'_>]) -> Option<Length> {
    let of = |name: &str| {
        let all = fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
        all.map(|f| String::from_utf8_lossy(f.value.trim_ascii()).to_ascii_lowercase()).collect::<Vec<_>>()
    };
    match (&of("content-length")[..], &of("transfer-encoding")[..]) {
        ([], []) => None,
        ([length], []) => Some(Length::Exact(length.parse().unwrap_or_else(|_| panic!("{length} was taken")))),
        ([], [coding]) if coding == "chunked" => Some(Length::Chunked),
        both => panic!("{both:?} was taken"),
    }
}

fn less_framing(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers
}

/// A body, how many octets it and its framing took, and its trailers.
type Read = (Vec<u8>, usize, Option<HeaderMap>);

/// What comes of a chunked body that comes in pieces of `sizes`, in turn.
fn read(octets: &[u8], sizes: &[u8]) -> Result<Option<Read>, Flaw> {
    let mut decoder = Decoder::new(Length::Chunked);
    let (mut buffer, mut body, mut taken, mut come) = (Vec::new(), Vec::new(), 0, 0);
    let mut sizes = sizes.iter().cycle();
    loop {
        let step = decoder.step(&buffer)?;
        buffer.drain(..step.skip);
        taken += step.skip;
        match step.what {
            Piece::Data(length) => {
                assert!(length > 0 && length <= buffer.len());
                body.extend(buffer.drain(..length));
                taken += length;
            }
            Piece::End(trailers) => return Ok(Some((body, taken, trailers.map(|t| *t)))),
            Piece::Wait if come == octets.len() => return Ok(None),
            Piece::Wait => {
                let next = sizes.next().map_or(1, |n| usize::from(*n).max(1)).min(octets.len() - come);
                buffer.extend(&octets[come..come + next]);
                come += next;
            }
        }
    }
}
