//! Digests of texts, in hexadecimal.

use std::sync::Arc;

use rhai::{Dynamic, ImmutableString, Module};
use ring::{digest, hmac};

use super::module::function;
use super::{HostModule, ScriptCall};
use crate::model::hash::hex;
use crate::model::secret::constant_time_eq;

pub(super) const MODULE: HostModule = HostModule {
    name: "hash",
    summary: "Digests of texts, in hexadecimal. SHA-1 and CRC-32 are for systems that ask for them; neither protects anything.",
    values: &[],
    functions: &[
        function("hash.sha256(text)", "SHA-256.", "hash.sha256(\"abc\").sub_string(0, 8)", "\"ba7816bf\""),
        function("hash.sha512(text)", "SHA-512.", "hash.sha512(\"abc\").len()", "128"),
        function("hash.sha1(text)", "SHA-1.", "hash.sha1(\"abc\")", "\"a9993e364706816aba3e25717850c26c9cd0d89d\""),
        function("hash.crc32(text)", "CRC-32.", "hash.crc32(\"123456789\")", "\"cbf43926\""),
        function(
            "hash.hmac_sha256(key, text)",
            "HMAC-SHA256, as webhooks are signed.",
            "hash.hmac_sha256(\"key\", \"The quick brown fox jumps over the lazy dog\").sub_string(0, 8)",
            "\"f7bc83f4\"",
        ),
        function(
            "hash.equal(a, b)",
            "Whether two texts are equal, in time that does not tell where they differ.",
            "hash.equal(\"a\", \"b\")",
            "false",
        ),
    ],
    object,
    register,
};

#[derive(Clone)]
struct Hash;

fn object(_: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Hash)
}

fn register(module: &mut Module) {
    module.set_custom_type::<Hash>("hash");
    let digests = [("sha256", &digest::SHA256), ("sha512", &digest::SHA512), ("sha1", &digest::SHA1_FOR_LEGACY_USE_ONLY)];
    for (name, algorithm) in digests {
        module.set_native_fn(name, move |_: &mut Hash, text: ImmutableString| {
            Ok(ImmutableString::from(hex(digest::digest(algorithm, text.as_bytes()).as_ref())))
        });
    }
    module.set_native_fn("crc32", |_: &mut Hash, text: ImmutableString| {
        Ok(ImmutableString::from(format!("{:08x}", crc32fast::hash(text.as_bytes()))))
    });
    module.set_native_fn("hmac_sha256", |_: &mut Hash, key: ImmutableString, text: ImmutableString| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        Ok(ImmutableString::from(hex(hmac::sign(&key, text.as_bytes()).as_ref())))
    });
    module.set_native_fn("equal", |_: &mut Hash, a: ImmutableString, b: ImmutableString| Ok(constant_time_eq(a.as_bytes(), b.as_bytes())));
}
