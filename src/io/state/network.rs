//! Recognises network file systems, where locks work differently.

use std::fs::File;

/// On these the kernel makes a lock of a whole file out of one of all its bytes, on the server: SQLite's own locks on the bytes would wait for
/// it for ever. NFS, SMB and CIFS, 9p. Source: linux/magic.h, and flock(2).
const LOCKS_ARE_ONE: [i64; 5] = [0x6969, 0x517b, 0xfe53_4d42, 0xff53_4d42, 0x0102_1997];

/// Whether the lock of this file leaves the locks of its bytes alone.
pub(super) fn locks_are_apart(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| !LOCKS_ARE_ONE.contains(&(stat.f_type & 0xffff_ffff)))
}
