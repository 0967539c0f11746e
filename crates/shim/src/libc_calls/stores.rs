//! How long an instruction is that stores to memory and does nothing else (x86-64).
//!
//! | instructions | opcodes |
//! |---|---|
//! | `mov` from a register, of an immediate | 88, 89, C6 /0, C7 /0 |
//! | `movnti`, `movdiri` | 0F C3, 0F 38 F9 |
//! | `movups`, `movlps`, `movhps`, `movaps`, `movntps`, `movdqa`, `movq`, `movntdq` and their kin | 0F 11, 13, 17, 29, 2B, 7F, D6, E7 |
//! | the same with a VEX or EVEX prefix | C5, C4, 62 |

/// Opcodes behind 0F, or in its map of a VEX or EVEX prefix.
const VECTOR: [u8; 8] = [0x11, 0x13, 0x17, 0x29, 0x2b, 0x7f, 0xd6, 0xe7];

/// Bytes of the instruction whose bytes `at` gives by index; `None` where it is not one of those.
pub fn length(at: impl Fn(usize) -> u8) -> Option<usize> {
    let mut next = 0;
    let mut is_short = false;
    while matches!(at(next), 0x66 | 0x67 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65) {
        is_short |= at(next) == 0x66;
        next += 1;
        if next > MOST_PREFIXES {
            return None;
        }
    }
    let mut is_wide = false;
    if at(next) & 0xf0 == 0x40 {
        is_wide = at(next) & 8 != 0;
        next += 1;
    }
    let word = if is_short && !is_wide { 2 } else { 4 };
    let (start, immediate) = match at(next) {
        0x88 | 0x89 => (next + 1, 0),
        0xc6 => (next + 1, 1),
        0xc7 => (next + 1, word),
        0x0f if at(next + 1) == 0xc3 || VECTOR.contains(&at(next + 1)) => (next + 2, 0),
        0x0f if at(next + 1) == 0x38 && at(next + 2) == 0xf9 => (next + 3, 0),
        0xc5 if VECTOR.contains(&at(next + 2)) => (next + 3, 0),
        0xc4 if at(next + 1) & 0x1f == 1 && VECTOR.contains(&at(next + 3)) => (next + 4, 0),
        0x62 if at(next + 1) & 7 == 1 && VECTOR.contains(&at(next + 4)) => (next + 5, 0),
        _ => return None,
    };
    // With an immediate these bits are a part of the opcode.
    let is_other = immediate != 0 && at(start) & 0x38 != 0;
    if is_other { None } else { Some(start + operand(start, at)? + immediate) }
}

/// More of them than an instruction has room for.
const MOST_PREFIXES: usize = 13;

/// Bytes of the operand that begins at `start`; `None` where it is a register.
fn operand(start: usize, at: impl Fn(usize) -> u8) -> Option<usize> {
    let (mode, register) = (at(start) >> 6, at(start) & 7);
    if mode == 3 {
        return None;
    }
    let has_index = register == 4;
    let base = if has_index { at(start + 1) & 7 } else { register };
    let displacement = match mode {
        1 => 1,
        0 if base != 5 => 0,
        _ => 4,
    };
    Some(1 + usize::from(has_index) + displacement)
}

#[cfg(test)]
mod tests {
    /// As an assembler writes them, with what they are.
    const STORES: &[(&str, &[u8])] = &[
        ("mov %al,(%rdi)", &[0x88, 0x07]),
        ("mov %eax,(%rdi)", &[0x89, 0x07]),
        ("mov %rax,0x40(%r12)", &[0x49, 0x89, 0x44, 0x24, 0x40]),
        ("mov %ax,(%rdi,%rcx,2)", &[0x66, 0x89, 0x04, 0x4f]),
        ("mov %ecx,0x12345678(%rip)", &[0x89, 0x0d, 0x78, 0x56, 0x34, 0x12]),
        ("mov %ecx,0x12345678(,%rax,4)", &[0x89, 0x0c, 0x85, 0x78, 0x56, 0x34, 0x12]),
        ("mov %ecx,0x100(%rsp)", &[0x89, 0x8c, 0x24, 0, 1, 0, 0]),
        ("movb $7,(%rax)", &[0xc6, 0x00, 0x07]),
        ("movw $7,(%rax)", &[0x66, 0xc7, 0x00, 0x07, 0]),
        ("movl $0,(%rax)", &[0xc7, 0x00, 0, 0, 0, 0]),
        ("movq $1,8(%rbp)", &[0x48, 0xc7, 0x45, 0x08, 1, 0, 0, 0]),
        ("movnti %eax,(%rdi)", &[0x0f, 0xc3, 0x07]),
        ("movdiri %rax,(%rdi)", &[0x48, 0x0f, 0x38, 0xf9, 0x07]),
        ("movups %xmm0,(%rdi)", &[0x0f, 0x11, 0x07]),
        ("movdqa %xmm8,0x10(%rdi)", &[0x66, 0x44, 0x0f, 0x7f, 0x47, 0x10]),
        ("movq %xmm0,(%rdi)", &[0x66, 0x0f, 0xd6, 0x07]),
        ("vmovdqu %ymm0,(%rdi)", &[0xc5, 0xfe, 0x7f, 0x07]),
        ("vmovdqu %ymm8,0x20(%r11)", &[0xc4, 0x41, 0x7e, 0x7f, 0x43, 0x20]),
        ("vmovdqu64 %zmm0,0x40(%rdi)", &[0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x47, 0x01]),
    ];
    const OTHERS: &[(&str, &[u8])] = &[
        ("mov %eax,%ecx", &[0x89, 0xc1]),
        ("mov %eax,%esp", &[0x89, 0xc4]),
        ("lock xadd %eax,(%rdi)", &[0xf0, 0x0f, 0xc1, 0x07]),
        ("xchg %eax,(%rdi)", &[0x87, 0x07]),
        ("rep stos %eax,(%rdi)", &[0xf3, 0xab]),
        ("add %eax,(%rdi)", &[0x01, 0x07]),
        ("xabort $7", &[0xc6, 0xf8, 0x07]),
        ("push %rax", &[0x50]),
        ("call *(%rax)", &[0xff, 0x10]),
    ];

    #[test]
    fn stores_have_their_length_and_nothing_else_has_one() {
        // Beyond the end of a store nobody looks.
        let length = |bytes: &[u8]| super::length(|index| *bytes.get(index).expect("a byte of the instruction"));
        for (text, bytes) in STORES {
            assert_eq!(length(bytes), Some(bytes.len()), "{text}");
        }
        for (text, bytes) in OTHERS {
            assert_eq!(length(bytes), None, "{text}");
        }
        assert_eq!(super::length(|_| 0x66), None);
    }
}
