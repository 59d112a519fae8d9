//! The checksums that a server gives of its files: every algorithm it knows.

use sha2::digest::DynDigest;

/// As `pg_checksum_type` (checksum_helper.c) has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// The server was told to make none.
    None,
    /// As the server writes it: the number as it lies in its memory, so either way round.
    Crc32c([u8; 4]),
    Sha224(Vec<u8>),
    Sha256(Vec<u8>),
    Sha384(Vec<u8>),
    Sha512(Vec<u8>),
}

impl Checksum {
    pub fn new(algorithm: &str, sum: Vec<u8>) -> Option<Checksum> {
        let sized = |bytes: usize| Some(sum.clone()).filter(|sum| sum.len() == bytes);
        match algorithm {
            "CRC32C" => sum.try_into().ok().map(Checksum::Crc32c),
            "SHA224" => sized(28).map(Checksum::Sha224),
            "SHA256" => sized(32).map(Checksum::Sha256),
            "SHA384" => sized(48).map(Checksum::Sha384),
            "SHA512" => sized(64).map(Checksum::Sha512),
            _ => None,
        }
    }
}

/// Takes the content of one file in pieces, and says at last whether it is the one listed.
pub struct FileHasher {
    expected: Checksum,
    hasher: Hasher,
}

enum Hasher {
    None,
    Crc32c(Box<crc_fast::Digest>),
    Sha(Box<dyn DynDigest + Send>),
}

impl FileHasher {
    pub fn new(expected: Checksum) -> FileHasher {
        let hasher = match &expected {
            Checksum::None => Hasher::None,
            Checksum::Crc32c(_) => {
                Hasher::Crc32c(Box::new(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)))
            }
            Checksum::Sha224(_) => Hasher::Sha(Box::new(sha2::Sha224::default())),
            Checksum::Sha256(_) => Hasher::Sha(Box::new(sha2::Sha256::default())),
            Checksum::Sha384(_) => Hasher::Sha(Box::new(sha2::Sha384::default())),
            Checksum::Sha512(_) => Hasher::Sha(Box::new(sha2::Sha512::default())),
        };
        FileHasher { expected, hasher }
    }

    pub fn write(&mut self, piece: &[u8]) {
        match &mut self.hasher {
            Hasher::None => {}
            Hasher::Crc32c(hasher) => hasher.update(piece),
            Hasher::Sha(hasher) => hasher.update(piece),
        }
    }

    /// The whole file has come.
    pub fn is_as_listed(self) -> bool {
        match (self.hasher, self.expected) {
            (Hasher::None, _) => true,
            (Hasher::Crc32c(hasher), Checksum::Crc32c(sum)) => {
                let found = hasher.finalize();
                [u32::from_le_bytes(sum), u32::from_be_bytes(sum)]
                    .iter()
                    .any(|sum| u64::from(*sum) == found)
            }
            (
                Hasher::Sha(hasher),
                Checksum::Sha224(sum)
                | Checksum::Sha256(sum)
                | Checksum::Sha384(sum)
                | Checksum::Sha512(sum),
            ) => hasher.finalize()[..] == sum[..],
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Checksum, FileHasher};

    fn hex(digits: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(digit).collect()
    }

    /// Of "abc", as FIPS 180 and RFC 3720's algorithm give them.
    const KNOWN: [(&str, &str); 6] = [
        ("CRC32C", "b73f4b36"),
        ("CRC32C", "364b3fb7"),
        ("SHA224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        ("SHA256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "SHA384",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            "SHA512",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ];

    #[test]
    fn every_algorithm_of_the_server_tells_right_from_wrong() {
        for (algorithm, digits) in KNOWN {
            let checksum = Checksum::new(algorithm, hex(digits)).unwrap();
            let check = |pieces: [&[u8]; 2]| {
                let mut hasher = FileHasher::new(checksum.clone());
                pieces.iter().for_each(|piece| hasher.write(piece));
                hasher.is_as_listed()
            };
            assert!(check([b"a", b"bc"]), "{algorithm}");
            assert!(!check([b"a", b"bd"]), "{algorithm}");
        }
        assert_eq!(Checksum::new("SHA256", vec![0; 28]), None);
        assert_eq!(Checksum::new("MD5", vec![0; 16]), None);
        let mut none = FileHasher::new(Checksum::None);
        none.write(b"anything");
        assert!(none.is_as_listed());
    }
}
