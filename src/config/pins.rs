//! Pins of certificates as Istio writes them -> digests.

use crate::plan::identity::Digest;

/// `verifyCertificateHash`: the SHA-256 of the certificate in hexadecimal, colons or not.
pub fn hash(text: &str) -> Result<Digest, String> {
    let digits: String = text.chars().filter(|letter| *letter != ':').collect();
    let malformed = || format!("expected a SHA-256 in hexadecimal, found {text:?}");
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(malformed());
    }
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| malformed())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
    }
    Ok(digest)
}

/// `verifyCertificateSpki`: the SHA-256 of the public key in base64.
pub fn spki(text: &str) -> Result<Digest, String> {
    let malformed = || format!("expected a SHA-256 in base64, found {text:?}");
    let body = text.strip_suffix('=').filter(|body| body.len() == 43).ok_or_else(malformed)?;
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::with_capacity(32));
    for letter in body.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(malformed()),
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            let [.., byte] = (bits >> count).to_be_bytes();
            bytes.push(byte);
            bits &= (1 << count) - 1;
        }
    }
    bytes.try_into().map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_a_hash_is_read_with_and_without_colons() {
        let plain = "00ff".repeat(16);
        let colons = plain.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let colons = colons.collect::<Vec<_>>().join(":").to_uppercase();
        assert_eq!(hash(&plain).unwrap(), hash(&colons).unwrap());
        assert_eq!(hash(&plain).unwrap()[..2], [0, 255]);
        for bad in ["", "00", &"zz".repeat(32), &"é".repeat(32)] {
            assert!(hash(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn t5_a_spki_pin_is_base64() {
        // SHA-256 of nothing.
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let expected = hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").unwrap();
        assert_eq!(spki(empty).unwrap(), expected);
        for bad in ["", "x", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", &"!".repeat(44)] {
            assert!(spki(bad).is_err(), "{bad}");
        }
    }
}
