#!/usr/bin/env python3
"""Writes the generated part of our corpus of personal data: `write.py > generated.jsonl`.

Every line is {"id", "text", "spans": [{"start", "end", "type"}]}, places in code points, end exclusive. The values are
made up here, with check digits that hold; the texts are templates of ours. Lines `hard/…` have nothing in them and look
as if they had: what developers write and logs are full of. Seeded: the same bytes on every run.
"""

import base64
import hashlib
import json
import random
import string
import sys
from collections.abc import Callable

R = random.Random(20261122)
Maker = Callable[[], str]


def digits(count: int, first: str = "123456789") -> str:
    return R.choice(first) + "".join(R.choice(string.digits) for _ in range(count - 1))


def letters(count: int, alphabet: str = string.ascii_uppercase) -> str:
    return "".join(R.choice(alphabet) for _ in range(count))


def random_text(count: int) -> str:
    return letters(count - 3, string.ascii_letters + string.digits) + "a7Q"


def hexadecimal(count: int) -> str:
    return letters(count, "0123456789abcdef")


def luhn(body: str) -> str:
    total = 0
    for index, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def weighted(make: Maker, weights: list[int], modulus: int, sign: int = -1) -> str:
    """A number whose last digit is the weighted sum of the others, or its negative, modulo `modulus`."""
    while True:
        body = make()
        check = sign * sum(int(d) * w for d, w in zip(body, weights, strict=True)) % modulus
        if check < 10 and len(set(body)) > 2:
            return body + str(check)


def grouped(value: str, *sizes: int, by: str = " ") -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(value[at : at + size])
        at += size
    return by.join(part for part in [*parts, value[at:]] if part)


def iban() -> str:
    country, make = R.choice(
        [
            ("DE", lambda: digits(18)),
            ("NL", lambda: "ABNA" + digits(10)),
            ("FR", lambda: digits(23)),
            ("GB", lambda: "NWBK" + digits(14)),
            ("ES", lambda: digits(20)),
            ("CH", lambda: digits(17)),
            ("PL", lambda: digits(24)),
            ("NO", lambda: digits(11)),
        ]
    )
    body = make()
    number = "".join(str(int(c, 36)) for c in body + country + "00")
    value = f"{country}{98 - int(number) % 97:02d}{body}"
    return R.choice([value, grouped(value, *[4] * (len(value) // 4))])


def card() -> str:
    prefix, length = R.choice([("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("3530", 16)])
    value = luhn(prefix + digits(length - len(prefix) - 1, string.digits))
    if length == 15:
        return R.choice([value, grouped(value, 4, 6, 5)])
    return R.choice([value, grouped(value, 4, 4, 4, 4), grouped(value, 4, 4, 4, 4, by="-")])


def base58(payload: bytes) -> str:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    whole = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, out = int.from_bytes(whole, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = alphabet[rest] + out
    return "1" * (len(whole) - len(whole.lstrip(b"\0"))) + out


def wallet() -> str:
    return R.choice([lambda: base58(b"\0" + R.randbytes(20)), lambda: "0x" + hexadecimal(40)])()


def email() -> str:
    name = R.choice(["ada", "grace.hopper", "j.doe+news", "info", "o.müller", "k_lee", "mary-ann"])
    domain = R.choice(["example.org", "example.com", "mail.example.co.uk", "firma.example.de", "uni.example.edu"])
    return f"{name}{R.choice(['', str(R.randrange(99))])}@{domain}"


def phone() -> str:
    return R.choice(
        [
            lambda: f"+1 {R.randrange(201, 989)}-555-0{R.randrange(100, 199)}",
            lambda: f"({R.randrange(201, 989)}) 555-0{R.randrange(100, 199)}",
            lambda: f"{R.randrange(201, 989)}-555-0{R.randrange(100, 199)}",
            lambda: f"+49 30 {digits(7)}",
            lambda: f"+44 20 7946 0{R.randrange(100, 999)}",
            lambda: f"+33 6 {grouped(digits(8), 2, 2, 2, 2)}",
            lambda: f"+34 6{grouped(digits(8), 2, 3, 3)}",
            lambda: f"+91 9{digits(4)} {digits(5)}",
            lambda: f"+55 11 9{digits(4)}-{digits(4)}",
            lambda: f"0{R.randrange(20, 99)} {digits(4)} {digits(4)}",
        ]
    )()


def ssn() -> str:
    area = R.choice([n for n in range(100, 773) if n != 666])
    return f"{area}-{R.randrange(10, 99)}-{R.randrange(1000, 9999)}"


def address_v4() -> str:
    return ".".join(str(R.randrange(11, 250)) for _ in range(4))


def ip() -> str:
    return address_v4() if R.random() < 0.7 else "2001:db8:" + ":".join("a" + hexadecimal(3) for _ in range(6))


def mac() -> str:
    by = R.choice(":-")
    return by.join(hexadecimal(2) for _ in range(6))


def jwt() -> str:
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")  # noqa: E731
    return f"{part({'alg': 'HS256'})}.{part({'sub': digits(10)})}.{random_text(43)}"


def api_key() -> str:
    return R.choice(
        [
            lambda: "sk-proj-" + random_text(48),
            lambda: "sk-ant-api03-" + random_text(80) + "AA",
            lambda: "glpat-" + random_text(20),
            lambda: "xoxb-" + digits(12) + "-" + digits(12) + "-" + random_text(24),
            lambda: "sk_live_" + random_text(24),
            lambda: "AIza" + random_text(35),
            lambda: "npm_" + random_text(36),
            lambda: "hf_" + random_text(34),
            lambda: "SG." + random_text(22) + "." + random_text(43),
            lambda: "SK" + hexadecimal(31) + "7",
        ]
    )()


def passport() -> str:
    return R.choice([lambda: digits(9), lambda: letters(1) + digits(8), lambda: letters(2) + digits(7)])()


def birth() -> str:
    year, month, day = R.randrange(1930, 2010), R.randrange(1, 13), R.randrange(1, 29)
    name = ["January", "March", "May", "July", "August", "October", "December"][R.randrange(7)]
    return R.choice([f"{year}-{month:02d}-{day:02d}", f"{day:02d}.{month:02d}.{year}", f"{name} {day}, {year}"])


def national() -> tuple[str, str]:
    """A number and the name of its register."""
    return R.choice(
        [
            lambda: (grouped(luhn(digits(8, "1234567")), 3, 3, 3), "SIN"),
            lambda: (weighted(lambda: digits(8), [9, 8, 7, 6, 5, 4, 3, 2], 11, 1), "BSN"),
            lambda: (dni(), "DNI"),
            lambda: (cpf(), "CPF"),
            lambda: (weighted(lambda: digits(8), [9, 8, 7, 6, 5, 4, 3, 2], 11), "NIF"),
            lambda: (weighted(lambda: digits(7), [2, 7, 6, 5, 4, 3, 2], 11), "CVR"),
            lambda: ("AB" + digits(6) + "C", "NI number"),
            lambda: (luhn(digits(8)), "SIREN"),
            lambda: (f"756.{grouped(ahv(), 4, 4, 2, by='.')}", "AHV-Nr"),
        ]
    )()


def dni() -> str:
    number = digits(8)
    return number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def cpf() -> str:
    body = digits(9)
    for weights in (range(10, 1, -1), range(11, 1, -1)):
        check = -sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11
        body += str(check % 10)
    return f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"


def ahv() -> str:
    body = digits(9)
    check = -sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate("756" + body)) % 10
    return body + str(check)


def nhs() -> str:
    return grouped(weighted(lambda: digits(9), list(range(10, 1, -1)), 11), 3, 3, 4)


def routing() -> str:
    return weighted(lambda: "0" + digits(7), [3, 7, 1, 3, 7, 1, 3, 7], 10)


# Values that are known by their form, and the carriers that any of them may stand in.
FORMED: dict[str, Maker] = {
    "EMAIL": email,
    "PHONE": phone,
    "US_SSN": ssn,
    "CREDIT_CARD": card,
    "IBAN": iban,
    "IP_ADDRESS": ip,
    "MAC_ADDRESS": mac,
    "CRYPTO_WALLET": wallet,
    "API_KEY": api_key,
    "AWS_KEY": lambda: "AKIA" + letters(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    "GITHUB_TOKEN": lambda: R.choice(["ghp_", "gho_", "ghs_"]) + random_text(36),
    "JWT": jwt,
    "URL_CREDENTIALS": lambda: f"postgres://app:{random_text(12)}@db{R.randrange(9)}.example.org:5432",
}
CARRIERS = [
    "Please note {} for later.",
    "The customer gave us {}, can you check it?",
    "Bitte {} in das System eintragen.",
    "Merci de vérifier {} avant demain.",
    "Por favor, compruebe {} hoy mismo.",
    '{{"value": "{}", "active": true}}',
    "value: {}\nstate: open\n",
    "2026-04-03T10:20:30Z INFO user={} logged in",
    "name;value\nAda;{}\n",
    "| Ada | {} | open |",
    "> {}\nIs that right?",
    "INSERT INTO contacts VALUES (17, '{}');",
    "- [ ] call back about {} (see the ticket)",
    "<td>{}</td>",
]
# Values that only their name tells, and carriers that name them.
NAMED: dict[str, tuple[Maker, list[str]]] = {
    "PASSPORT": (passport, ["Passport number: {}", "her passport no. is {}", "Reisepass {}", "numéro de passeport {}"]),
    "DATE_OF_BIRTH": (birth, ["Date of birth: {}", "born on {}", "geboren am {}", '"dob": "{}"', "née le {}"]),
    "BANK_ROUTING": (routing, ["Routing number {}", "ABA: {}", "routing no. {} at our bank"]),
    "BANK_ACCOUNT": (lambda: digits(10), ["Account number: {}", "checking account {}", "Kontonummer {}"]),
    "MEDICAL_ID": (nhs, ["NHS number {}", "the patient's NHS no {}"]),
    "DRIVER_LICENSE": (lambda: letters(1) + digits(8), ["Driver's license: {}", "DL number {}", "driving licence {}"]),
    "PASSWORD": (lambda: "Tr0ub" + random_text(6), ["password: {}", "DB_PASSWORD={}", "my password is {}"]),
}
# Nothing in these is anyone's.
HARD: list[Maker] = [
    lambda: f"commit {hexadecimal(40)} by the release bot",
    lambda: f"Merge {hexadecimal(7)} into {hexadecimal(7)}",
    lambda: f"request_id={uuid()} status=200",
    lambda: f"upgrade from version {R.randrange(9)}.{R.randrange(9)}.{R.randrange(9)}.{R.randrange(9)} to the next",
    lambda: f"libfoo-{R.randrange(9)}.{R.randrange(20)}.{R.randrange(99)}.tar.gz: OK",
    lambda: f"built at {R.randrange(1600000000, 1800000000)} on node {R.randrange(99)}",
    lambda: f"took {R.randrange(10**12, 10**13)} ns, {R.random() * 100:.9f} s",
    lambda: f"order {digits(12)} was shipped, tracking 1Z{letters(3)}{digits(10)}",
    lambda: f"sha256:{hexadecimal(64)}",
    lambda: f'"integrity": "sha512-{base64.b64encode(R.randbytes(64)).decode()}"',
    lambda: f"ISBN 978-3-{digits(2)}-{digits(6)}-{R.randrange(9)}, second edition",
    lambda: f"invoice {R.randrange(2019, 2027)}-{digits(6)} of {R.randrange(1, 28):02d}.{R.randrange(1, 12):02d}.2025",
    lambda: f"at Module._compile (node:internal/modules/cjs/loader:{R.randrange(1000, 2000)}:{R.randrange(10, 40)})",
    lambda: f"SELECT * FROM t WHERE id BETWEEN {digits(6)} AND {digits(7)} LIMIT 100",
    lambda: f"part number {letters(3)}-{digits(4)}-{digits(3)} rev {letters(1)}",
    lambda: f"error 0x{hexadecimal(8)} in thread 0x{hexadecimal(12)}",
    lambda: f"colors: #{hexadecimal(6)}, #{hexadecimal(6)}; width {R.randrange(9999)}px",
    lambda: (
        f"2026-0{R.randrange(1, 9)}-1{R.randrange(9)}T1{R.randrange(9)}:2{R.randrange(9)}:30.{digits(6)}Z DEBUG done"
    ),
    lambda: f"retry {R.randrange(9)} of 10, waited {R.randrange(1000, 60000)} ms, {digits(8)} bytes",
    lambda: f"use std::collections::{R.choice(['BTreeMap', 'HashMap'])}; // a::b::c",
    lambda: f"ping localhost ({R.choice(['127.0.0.1', '0.0.0.0'])}) port {R.randrange(1024, 65535)}",
    lambda: "git clone git@github.com:example/project.git && cd project",
    lambda: f"npm install left-pad@{R.randrange(9)}.{R.randrange(9)}.{R.randrange(9)} react@{R.randrange(20)}.0.1",
    lambda: f"api_key = os.environ['SERVICE_KEY_{R.randrange(9)}']  # never in the code",
    lambda: "export TOKEN=${CI_JOB_TOKEN}; password: <your password>",
    lambda: f'assert_eq!(checksum(b"{R.randrange(9)}"), {digits(10)});',
    lambda: f'ETag: W/"{hexadecimal(16)}" Content-Length: {digits(5)}',
    lambda: f"job {digits(8)}/{digits(4)} on runner-{letters(8, 'abcdef0123456789')}",
    lambda: f"snowflake {digits(18)} in channel {digits(6)}",
    lambda: f"RFC {R.randrange(1000, 9000)}, section {R.randrange(9)}.{R.randrange(9)}.{R.randrange(9)}",
    lambda: f"released {R.randrange(1, 28)} March 2026; {digits(3)},{digits(3)} downloads",
    lambda: f"matrix [[{R.random():.6f}, {R.random():.6f}], [{R.random():.6f}, {R.random():.6f}]]",
    lambda: f"EUR {digits(4)}.{R.randrange(10, 99)} in Q{R.randrange(1, 4)}, up {R.random() * 9:.2f} %",
    lambda: f"chunk {R.randrange(999)} crc32 {hexadecimal(8)} adler {digits(10)}",
    lambda: f"test result: ok. {R.randrange(999)} passed; 0 failed; finished in {R.random() * 9:.2f}s",
    lambda: f"ticket PROJ-{digits(4)}, epic OPS-{digits(5)}, estimate {R.randrange(13)} points",
    lambda: f"kernel 6.{R.randrange(20)}.{R.randrange(99)}-{R.randrange(99)}-generic #{digits(2)}~22.04.1 SMP",
    lambda: f"lot {digits(6)}-{digits(4)}, serial number {letters(2)}{digits(8)}, model {letters(2)}-{digits(3)}",
    lambda: f"the trace shows {digits(3)}.{digits(3)} at frame {digits(5)} (fps {R.randrange(24, 60)})",
    lambda: f"Firmware 10.{R.randrange(9)}.{R.randrange(99)}.{R.randrange(99)} fixes the reboot loop",
]


def uuid() -> str:
    return grouped(hexadecimal(32), 8, 4, 4, 4, 12, by="-")


def line(name: str, carrier: str, value: str, kind: str) -> dict[str, object]:
    before, after = carrier.replace("{{", "{").replace("}}", "}").split("{}")
    spans = [{"start": len(before), "end": len(before) + len(value), "type": kind}]
    return {"id": name, "text": before + value + after, "spans": spans}


def main() -> None:
    lines: list[dict[str, object]] = []
    for kind, make in FORMED.items():
        lines += [line(f"{kind}/{number}", CARRIERS[number % len(CARRIERS)], make(), kind) for number in range(70)]
    for kind, (make, carriers) in NAMED.items():
        lines += [line(f"{kind}/{n}", carriers[n % len(carriers)] + ".", make(), kind) for n in range(50)]
    for number in range(120):
        value, name = national()
        carrier = ["{0}: {{}}", "my {0} is {{}}.", "the form says {0} {{}}, please check"][number % 3].format(name)
        lines.append(line(f"NATIONAL_ID/{number}", carrier, value, "NATIONAL_ID"))
    for index, make in enumerate(HARD):
        lines += [{"id": f"hard/{index}/{number}", "text": make(), "spans": []} for number in range(45)]
    for row in lines:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
