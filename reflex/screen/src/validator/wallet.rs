//! Addresses of block chains.

use sha2::{Digest, Sha256};
use sha3::Keccak256;

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Base58Check: the last four bytes are the head of the double SHA-256 of the others.
pub(super) fn base58check(candidate: &str) -> bool {
    let mut bytes = [0_u8; 25];
    for symbol in candidate.bytes() {
        let Some(value) = BASE58.iter().position(|own| *own == symbol) else {
            return false;
        };
        let mut carry = value;
        for byte in bytes.iter_mut().rev() {
            carry += usize::from(*byte) * 58;
            *byte = u8::try_from(carry & 0xFF).unwrap_or_default();
            carry >>= 8;
        }
        if carry > 0 {
            return false;
        }
    }
    let sum = Sha256::digest(Sha256::digest(&bytes[..21]));
    bytes[21..] == sum[..4]
}

/// Bech32 and Bech32m, by their polynomial.
pub(super) fn bech32(candidate: &str) -> bool {
    const GENERATOR: [u32; 5] = [
        0x3B6A_57B2,
        0x2650_8E6D,
        0x1EA1_19FA,
        0x3D42_33DD,
        0x2A14_62B3,
    ];
    let lower = candidate.to_ascii_lowercase();
    if candidate != lower && candidate != candidate.to_ascii_uppercase() {
        return false;
    }
    let Some((prefix, data)) = lower.rsplit_once('1') else {
        return false;
    };
    let high = prefix.bytes().map(|byte| u32::from(byte >> 5));
    let low = prefix.bytes().map(|byte| u32::from(byte & 31));
    let mut values: Vec<u32> = high.chain([0]).chain(low).collect();
    for symbol in data.bytes() {
        match BECH32.iter().zip(0..).find(|(own, _)| **own == symbol) {
            Some((_, value)) => values.push(value),
            None => return false,
        }
    }
    let sum = values.iter().fold(1_u32, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x01FF_FFFF) << 5 ^ value;
        let generators = GENERATOR
            .iter()
            .enumerate()
            .filter(|(bit, _)| top >> bit & 1 == 1);
        generators.fold(next, |next, (_, generator)| next ^ generator)
    });
    sum == 1 || sum == 0x2BC8_30A3
}

/// EIP-55: letters of mixed case tell a checksum; letters of one case tell none and are taken as they are.
pub(super) fn eip_55(candidate: &str) -> bool {
    let Some(digits) = candidate.get(2..).filter(|digits| digits.len() == 40) else {
        return false;
    };
    let varied = digits.bytes().any(|byte| byte != digits.as_bytes()[0]);
    let lower = digits.to_ascii_lowercase();
    if digits == lower || digits == digits.to_ascii_uppercase() {
        return varied;
    }
    let sum = Keccak256::digest(lower.as_bytes());
    digits.bytes().enumerate().all(|(index, byte)| {
        let nibble = sum[index / 2] >> (4 * (1 - index % 2)) & 15;
        byte.is_ascii_digit() || byte.is_ascii_uppercase() == (nibble >= 8)
    })
}
