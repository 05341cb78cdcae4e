//! Checks beyond a pattern: checksums, lengths and number ranges.

mod national;
mod network;
mod payment;
mod phone;
mod secret;
mod wallet;

use serde::Deserialize;

use crate::date;

/// A check by name, as the rule files know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Validator {
    /// Payment card: brand by prefix, length by brand, Luhn digit (ISO/IEC 7812-1).
    Card,
    /// IBAN: length by country, remainder 1 modulo 97 (ISO 13616, SWIFT IBAN Registry).
    Iban,
    /// US social security number: areas, groups and serials that are never issued (SSA, POMS RM 10201.035).
    Ssn,
    /// US individual taxpayer number.
    Itin,
    /// US employer number.
    Ein,
    /// UK national insurance number.
    Nino,
    /// UK unique taxpayer reference.
    Utr,
    /// Luhn digit over all digits.
    Luhn,
    /// Luhn digit over the last ten digits.
    Swedish,
    /// US national provider identifier.
    Npi,
    /// German number of health insurance.
    Kvnr,
    /// German number of pension insurance.
    Rvnr,
    /// ISO 7064 modulo 11,10.
    #[serde(rename = "mod_11_10")]
    Mod1110,
    /// German tax number of a person.
    SteuerId,
    /// India's Aadhaar.
    Verhoeff,
    /// Spanish DNI and NIE.
    Dni,
    /// Spanish company number.
    Cif,
    /// Finnish personal number.
    Hetu,
    /// Turkish identity number.
    Tckn,
    /// French number of a person.
    Nir,
    /// Belgian number of a person.
    Belgian,
    /// Remainder modulo 97 in the last two digits.
    #[serde(rename = "mod_97")]
    Mod97,
    /// Italian tax code.
    CodiceFiscale,
    /// Numbers of Estonia and Lithuania.
    Baltic,
    /// Irish number of a person.
    Pps,
    /// Singapore's number of a person.
    Nric,
    /// Thailand's number of a person.
    Thai,
    /// Australia's business number.
    Abn,
    /// Spain's supply points.
    Cups,
    /// Morocco's company number.
    Ice,
    /// French VAT number.
    FrenchVat,
    /// Number in Russia's register of companies.
    Ogrn,
    /// Venezuela's taxpayer number.
    Rif,
    /// Number of a vehicle (ISO 3779).
    Vin,
    /// Weights 7, 3, 1 over letters and digits (ICAO 9303).
    Icao,
    /// Date of birth, written in any usual way.
    BirthDate,
    /// IPv4 or IPv6 address (RFC 4291), with a prefix length or without.
    Ip,
    /// International telephone number (ITU-T E.164).
    Phone,
    /// National telephone number: its count of digits alone.
    NationalPhone,
    /// National telephone number that begins with the trunk prefix 0.
    TrunkPhone,
    /// Five digits or more among the letters.
    Numbered,
    /// Token with the mark of its issuer: digits or letters of both cases, no placeholder.
    Token,
    /// Token of capitals and digits alone: varied, no placeholder.
    Issued,
    /// Value of a key that is random enough to be one.
    Secret,
    /// Password: no variable, no name of a placeholder.
    Password,
    /// Bitcoin address in Base58Check, and those of other chains.
    Base58check,
    /// Address in Bech32 or Bech32m (BIP 173, BIP 350).
    Bech32,
    /// Ethereum address (EIP-55).
    #[serde(rename = "eip_55")]
    Eip55,
}

impl Validator {
    /// Bytes of `candidate`, from its start, that are a valid value; a pattern may have taken in what follows it.
    pub(crate) fn accept(self, candidate: &str) -> Option<usize> {
        let whole = |valid: bool| valid.then_some(candidate.len());
        match self {
            Self::Card => payment::card(candidate),
            Self::Iban => payment::iban(candidate),
            Self::Ssn => whole(national::ssn(candidate)),
            Self::Itin => whole(national::itin(candidate)),
            Self::Ein => whole(national::ein(candidate)),
            Self::Nino => whole(national::nino(candidate)),
            Self::Utr => whole(national::utr(candidate)),
            Self::Luhn => whole(national::luhn_digits(candidate)),
            Self::Swedish => whole(national::swedish(candidate)),
            Self::Npi => whole(national::npi(candidate)),
            Self::Kvnr => whole(national::kvnr(candidate)),
            Self::Rvnr => whole(national::rvnr(candidate)),
            Self::Mod1110 => whole(national::mod_11_10(candidate)),
            Self::SteuerId => whole(national::steuer_id(candidate)),
            Self::Verhoeff => whole(national::verhoeff(candidate)),
            Self::Dni => whole(national::dni(candidate)),
            Self::Cif => whole(national::cif(candidate)),
            Self::Hetu => whole(national::hetu(candidate)),
            Self::Tckn => whole(national::tckn(candidate)),
            Self::Nir => whole(national::nir(candidate)),
            Self::Belgian => whole(national::belgian(candidate)),
            Self::Mod97 => whole(national::mod_97(candidate)),
            Self::CodiceFiscale => whole(national::codice_fiscale(candidate)),
            Self::Baltic => whole(national::baltic(candidate)),
            Self::Pps => whole(national::pps(candidate)),
            Self::Nric => whole(national::nric(candidate)),
            Self::Thai => whole(national::thai(candidate)),
            Self::Abn => whole(national::abn(candidate)),
            Self::Cups => whole(national::cups(candidate)),
            Self::Ice => whole(national::ice(candidate)),
            Self::FrenchVat => whole(national::french_vat(candidate)),
            Self::Ogrn => whole(national::ogrn(candidate)),
            Self::Rif => whole(national::rif(candidate)),
            Self::Vin => whole(national::vin(candidate)),
            Self::Icao => whole(national::icao(candidate)),
            Self::BirthDate => whole(date::is_birth_date(candidate)),
            Self::Ip => network::ip(candidate),
            Self::Phone => phone::international(candidate),
            Self::NationalPhone => phone::national(candidate),
            Self::TrunkPhone => phone::trunk(candidate),
            Self::Numbered => whole(digits(candidate).len() >= 5),
            Self::Token => whole(secret::is_token(candidate)),
            Self::Issued => whole(secret::is_issued(candidate)),
            Self::Secret => whole(secret::is_secret(candidate)),
            Self::Password => whole(secret::is_password(candidate)),
            Self::Base58check => whole(wallet::base58check(candidate)),
            Self::Bech32 => whole(wallet::bech32(candidate)),
            Self::Eip55 => whole(wallet::eip_55(candidate)),
        }
    }
}

/// Digits of a candidate.
fn digits(candidate: &str) -> Vec<u32> {
    candidate
        .chars()
        .filter_map(|character| character.to_digit(10))
        .collect()
}

/// Letters, in upper case, and digits of a candidate with the byte after each.
fn symbols(candidate: &str) -> Vec<(u8, usize)> {
    let bytes = candidate.bytes().enumerate();
    bytes
        .filter(|(_, byte)| byte.is_ascii_alphanumeric())
        .map(|(at, byte)| (byte.to_ascii_uppercase(), at + 1))
        .collect()
}

/// Whether a value may end at byte `end`: neither a letter nor a digit follows.
fn ends(candidate: &str, end: usize) -> bool {
    candidate
        .as_bytes()
        .get(end)
        .is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers() {
        for (candidate, accepted) in [
            ("4111111111111111", Some(16)),
            ("4111 1111 1111 1111 22", Some(19)),
            ("4111 1111 1111 111122", None),
            ("4111111111111112", None),
            ("378282246310005", Some(15)),
            ("2223003122003222", Some(16)),
            ("6011111111111117", Some(16)),
            ("3530111333300000", Some(16)),
            ("30569309025904", Some(14)),
            ("180045984582343", Some(15)),
            ("1234567812345670", None), // Luhn holds, no brand
            ("4", None),
            ("", None),
        ] {
            assert_eq!(Validator::Card.accept(candidate), accepted, "{candidate}");
        }
    }

    #[test]
    fn ibans() {
        for (candidate, accepted) in [
            ("DE89370400440532013000", Some(22)),
            ("de89 3704 0044 0532 0130 00", Some(27)),
            ("DE89 3704 0044 0532 0130 00 is mine", Some(27)),
            ("DE88370400440532013000", None),
            ("DE8937040044053201300", None),
            ("GB82WEST12345698765432", Some(22)),
            ("ZZ89370400440532013000", None),
            ("NO9386011117947", Some(15)),
            ("N", None),
        ] {
            assert_eq!(Validator::Iban.accept(candidate), accepted, "{candidate}");
        }
    }

    #[test]
    fn social_security_numbers() {
        for (candidate, valid) in [
            ("219-45-6780", true),
            ("000-45-6780", false),
            ("666-45-6780", false),
            ("900-45-6780", false),
            ("219-00-6780", false),
            ("219-45-0000", false),
            ("078-05-1120", false),
            ("111-11-1111", false),
            ("219456780", true),
        ] {
            assert_eq!(
                Validator::Ssn.accept(candidate).is_some(),
                valid,
                "{candidate}"
            );
        }
    }

    #[test]
    fn published_numbers() {
        for (validator, candidate, valid) in [
            (Validator::Itin, "911-70-1234", true),
            (Validator::Itin, "911-93-1234", false),
            (Validator::Ein, "91-1144442", true),
            (Validator::Ein, "07-1144442", false),
            (Validator::Nino, "AA123456B", true),
            (Validator::Nino, "BG123456A", false),
            (Validator::Verhoeff, "234123412346", true),
            (Validator::Verhoeff, "234123412347", false),
            (Validator::Dni, "54362315K", true),
            (Validator::Dni, "54362315Z", false),
            (Validator::Dni, "X-2482300W", true),
            (Validator::Cif, "J99216582", true),
            (Validator::Cif, "J99216583", false),
            (Validator::Hetu, "131052-308T", true),
            (Validator::Hetu, "131052-308U", false),
            (Validator::Tckn, "17291716060", true),
            (Validator::Tckn, "17291716050", false),
            (Validator::Nir, "2 95 10 99 126 111 93", true),
            (Validator::Nir, "2 95 10 99 126 111 92", false),
            (Validator::Belgian, "85.07.30-033 28", true),
            (Validator::Belgian, "85.07.30-033 29", false),
            (Validator::CodiceFiscale, "RCCMNL83S18D969H", true),
            (Validator::CodiceFiscale, "RCCMNL83S18D969", false),
            (Validator::Baltic, "37605030299", true),
            (Validator::Baltic, "37605030291", false),
            (Validator::Pps, "6433435F", true),
            (Validator::Pps, "6433435E", false),
            (Validator::Nric, "S1234567D", true),
            (Validator::Nric, "S1234567E", false),
            (Validator::Abn, "83 914 571 673", true),
            (Validator::Abn, "99 999 999 999", false),
            (Validator::SteuerId, "36574261809", true),
            (Validator::SteuerId, "36574261890", false),
            (Validator::Mod1110, "33392005961", true),
            (Validator::Vin, "1M8GDM9AXKP042788", true),
            (Validator::Vin, "1M8GDM9AXKP042789", false),
            (Validator::Npi, "1234567893", true),
            (Validator::Npi, "1234567890", false),
            (Validator::Ip, "2001:db8::1", true),
            (Validator::Ip, "1.2.3.256", false),
            (
                Validator::Base58check,
                "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
                true,
            ),
            (
                Validator::Base58check,
                "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
                false,
            ),
            (
                Validator::Bech32,
                "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
                true,
            ),
            (
                Validator::Bech32,
                "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdp",
                false,
            ),
            (
                Validator::Eip55,
                "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
                true,
            ),
            (
                Validator::Eip55,
                "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD",
                false,
            ),
        ] {
            assert_eq!(
                validator.accept(candidate).is_some(),
                valid,
                "{validator:?} {candidate}"
            );
        }
    }
}
