//! The Huffman code of HPACK and QPACK (RFC 7541 section 5.2 and appendix B), decoding only: what we write is not coded.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and those of the next length
//! follow them. So the lengths say everything.

/// Bits of each octet's code; behind them those of the end of a string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28,
    28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6,
    7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13,
    19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11,
    14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23,
    23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22,
    21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26,
    24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The end of a string: only its beginning may stand there, as padding.
const END: u16 = 256;
const LONGEST: usize = 30;

/// The code, ready to be read from the front of 32 bits.
struct Code {
    /// By length: the first 32 bits that are beyond its codes.
    beyond: [u64; LONGEST + 1],
    /// By length: the first of its codes, at the front of 32 bits.
    first: [u32; LONGEST + 1],
    /// By length: where its symbols begin.
    from: [u16; LONGEST + 1],
    symbols: [u16; 257],
    /// By the first octet: the symbol and the bits of a code that is no longer; no bits where all are.
    short: [(u8, u8); 256],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut made = Code {
        beyond: [0; LONGEST + 1],
        first: [0; LONGEST + 1],
        from: [0; LONGEST + 1],
        symbols: [0; 257],
        short: [(0, 0); 256],
    };
    let (mut next, mut at, mut length) = (0u64, 0, 1);
    while length <= LONGEST {
        let step = 1u64 << (32 - length);
        made.first[length] = next as u32;
        made.from[length] = at as u16;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                made.symbols[at] = symbol as u16;
                if length <= 8 {
                    let (mut octet, end) = ((next >> 24) as usize, ((next + step) >> 24) as usize);
                    while octet < end {
                        made.short[octet] = (symbol as u8, length as u8);
                        octet += 1;
                    }
                }
                at += 1;
                next += step;
            }
            symbol += 1;
        }
        made.beyond[length] = next;
        length += 1;
    }
    made
}

/// The symbol whose code `window` begins with, and the bits of that code.
fn symbol(window: u32) -> (u16, u32) {
    let (octet, bits) = CODE.short[(window >> 24) as usize];
    if bits > 0 {
        return (u16::from(octet), u32::from(bits));
    }
    for length in 9..LONGEST {
        if u64::from(window) < CODE.beyond[length] {
            let nth = (window - CODE.first[length]) >> (32 - length);
            return (CODE.symbols[CODE.from[length] as usize + nth as usize], length as u32);
        }
    }
    let nth = (window - CODE.first[LONGEST]) >> 2;
    (CODE.symbols[CODE.from[LONGEST] as usize + nth as usize], LONGEST as u32)
}

/// Puts what `coded` says behind `out`. False, and perhaps a part of it, where it is no string: a code that is cut, padding
/// of an octet or more or of other bits than ones, the end of a string within one (RFC 7541 section 5.2).
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut held, mut bits) = (0u64, 0u32);
    let mut coded = coded.iter();
    loop {
        while bits <= 32 {
            let Some(octet) = coded.next() else { break };
            held = held << 8 | u64::from(*octet);
            bits += 8;
        }
        // Behind the last bit there are ones: what is left then is padding or nothing.
        let window = if bits >= 32 { (held >> (bits - 32)) as u32 } else { padded(held, bits) };
        if bits < 8 && window == u32::MAX {
            return true;
        }
        let (symbol, length) = symbol(window);
        if symbol == END || length > bits {
            return false;
        }
        out.push(symbol as u8);
        bits -= length;
        held &= (1 << bits) - 1;
    }
}

/// The last `bits` of `held`, fewer than 32, at the front of 32, and ones behind them.
const fn padded(held: u64, bits: u32) -> u32 {
    (held << (32 - bits)) as u32 | u32::MAX >> bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the code says of `text`.
    fn encode(text: &[u8]) -> Vec<u8> {
        let (mut out, mut held, mut bits) = (Vec::new(), 0u64, 0);
        for &octet in text {
            let length = usize::from(LENGTHS[usize::from(octet)]);
            let nth =
                CODE.symbols.iter().position(|s| *s == u16::from(octet)).unwrap() - usize::from(CODE.from[length]);
            let code = u64::from(CODE.first[length] >> (32 - length)) + nth as u64;
            held = held << length | code;
            bits += length;
            while bits >= 8 {
                bits -= 8;
                out.push((held >> bits) as u8);
                held &= (1 << bits) - 1;
            }
        }
        if bits > 0 {
            out.push((held << (8 - bits)) as u8 | 0xff >> bits);
        }
        out
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).then_some(out)
    }

    /// RFC 7541 appendix C.4 and C.6.
    #[test]
    fn examples_of_the_rfc() {
        for (coded, text) in [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x64, 0x02], "302"),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private"),
            (&[], ""),
        ] {
            assert_eq!(decoded(coded).unwrap(), text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for coded in [
            &[0xff][..],               // an octet of padding
            &[0x07, 0xff],             // `0`, padding of a whole octet and more
            &[0x00],                   // `0`, and then zeros
            &[0xff, 0xff, 0xff, 0xff], // the end of a string
            &[0xff, 0xff, 0xff, 0xfc], // cut within a code
        ] {
            assert_eq!(decoded(coded), None, "{coded:x?}");
        }
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }
    }
}
