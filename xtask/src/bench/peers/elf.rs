//! Makes rotel's program, which its wheel built against glibc 2.38, start on systems with an older one.
//!
//! It asks glibc 2.38 for two functions only: `__isoc23_strtol` and `__isoc23_sscanf`, the names that newer
//! headers give to `strtol` and `sscanf`. The patch points those two symbols at the end of their own names
//! (`strtol`, `sscanf`) and their version at one that every glibc has. Nothing else is touched, and
//! nothing of what is measured depends on it.

use anyhow::Context;

const PREFIX: &[u8] = b"__isoc23_";
const NEW_VERSION: &[u8] = b"GLIBC_2.38";
const OLD_VERSION: &[u8] = b"GLIBC_2.2.5";

const SHT_DYNSYM: u32 = 11;
const SHT_GNU_VERNEED: u32 = 0x6fff_fffe;

/// Patches a 64-bit little-endian ELF program in place; gives the number of symbols renamed.
pub fn lower_glibc(elf: &mut [u8]) -> anyhow::Result<usize> {
    let sections = sections(elf).context("not a 64-bit ELF file with section headers")?;
    let of_kind = |kind| sections.iter().find(|s| s.kind == kind).copied();
    let (Some(symbols), Some(versions)) = (of_kind(SHT_DYNSYM), of_kind(SHT_GNU_VERNEED)) else {
        return Ok(0);
    };
    let strings = sections
        .get(symbols.link)
        .context("symbols without names")?
        .offset;
    if !lower_version(elf, versions, strings).context("version needs are cut short")? {
        return Ok(0);
    }
    let mut renamed = 0;
    for entry in (symbols.offset..symbols.offset + symbols.size).step_by(24) {
        let name = u32_at(elf, entry).context("symbols are cut short")?;
        if text(elf, strings + name as usize).is_some_and(|name| name.starts_with(PREFIX)) {
            put_u32(elf, entry, name + PREFIX.len() as u32).context("symbols are cut short")?;
            renamed += 1;
        }
    }
    Ok(renamed)
}

#[derive(Clone, Copy)]
struct Section {
    kind: u32,
    offset: usize,
    size: usize,
    link: usize,
}

fn sections(elf: &[u8]) -> Option<Vec<Section>> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = u64_at(elf, 0x28)?;
    let entry_size = u16_at(elf, 0x3a)?;
    let count = u16_at(elf, 0x3c)?;
    (0..count)
        .map(|index| {
            let at = table + index * entry_size;
            Some(Section {
                kind: u32_at(elf, at + 4)?,
                offset: u64_at(elf, at + 0x18)?,
                size: u64_at(elf, at + 0x20)?,
                link: u32_at(elf, at + 0x28)? as usize,
            })
        })
        .collect()
}

/// Gives the newer version the older one's name and hash in every library's list; says whether both were there.
fn lower_version(elf: &mut [u8], section: Section, strings: usize) -> Option<bool> {
    let mut library = section.offset;
    let mut found = false;
    loop {
        let entries = entries(elf, library)?;
        let named = |wanted| {
            entries.iter().copied().find(|&entry| {
                u32_at(elf, entry + 8).and_then(|name| text(elf, strings + name as usize))
                    == Some(wanted)
            })
        };
        if let (Some(new), Some(old)) = (named(NEW_VERSION), named(OLD_VERSION)) {
            let (hash, name) = (u32_at(elf, old)?, u32_at(elf, old + 8)?);
            put_u32(elf, new, hash)?;
            put_u32(elf, new + 8, name)?;
            found = true;
        }
        match u32_at(elf, library + 12)? as usize {
            0 => return Some(found),
            next => library += next,
        }
    }
}

/// Offsets of the version entries of the library at `library`.
fn entries(elf: &[u8], library: usize) -> Option<Vec<usize>> {
    let count = u16_at(elf, library + 2)?;
    let mut at = library + u32_at(elf, library + 8)? as usize;
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(at);
        at += u32_at(elf, at + 12)? as usize;
    }
    Some(offsets)
}

fn text(elf: &[u8], at: usize) -> Option<&[u8]> {
    elf.get(at..)?.split(|&byte| byte == 0).next()
}

fn array<const N: usize>(elf: &[u8], at: usize) -> Option<[u8; N]> {
    elf.get(at..)?.first_chunk().copied()
}

fn u16_at(elf: &[u8], at: usize) -> Option<usize> {
    array(elf, at).map(|bytes| usize::from(u16::from_le_bytes(bytes)))
}

fn u32_at(elf: &[u8], at: usize) -> Option<u32> {
    array(elf, at).map(u32::from_le_bytes)
}

fn u64_at(elf: &[u8], at: usize) -> Option<usize> {
    array(elf, at)
        .map(u64::from_le_bytes)
        .and_then(|n| usize::try_from(n).ok())
}

fn put_u32(elf: &mut [u8], at: usize, value: u32) -> Option<()> {
    elf.get_mut(at..)?
        .first_chunk_mut()
        .map(|bytes| *bytes = value.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused_and_other_programs_kept() {
        assert!(lower_glibc(&mut b"#!/bin/sh".to_vec()).is_err());
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut patched = own.clone();
        if lower_glibc(&mut patched).unwrap() == 0 {
            assert_eq!(own, patched);
        }
    }
}
