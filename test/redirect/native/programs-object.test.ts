import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readPrograms } from '../../../src/redirect/native/native-files.ts';

interface Section {
  readonly name: string;
  readonly bytes: Buffer;
}

/** The sections of an ELF file (64 bit, little endian, as every BPF object is here). */
function readSections(object: Uint8Array): readonly Section[] {
  const file = Buffer.from(object);
  const headersAt = Number(file.readBigUInt64LE(0x28));
  const [size, count, namesIndex] = [0x3a, 0x3c, 0x3e].map((at) => file.readUInt16LE(at));
  assert.ok(size !== undefined && count !== undefined && namesIndex !== undefined);
  const header = (index: number) => file.subarray(headersAt + index * size);
  const namesAt = Number(header(namesIndex).readBigUInt64LE(0x18));
  return Array.from({ length: count }, (_, index) => {
    const at = namesAt + header(index).readUInt32LE(0);
    const start = Number(header(index).readBigUInt64LE(0x18));
    const length = Number(header(index).readBigUInt64LE(0x20));
    return {
      name: file.toString('latin1', at, file.indexOf(0, at)),
      bytes: file.subarray(start, start + length),
    };
  });
}

const instructionBytes = 8;
const [classMask, jumpClass, jump32Class] = [0x07, 0x05, 0x06];
const [storeClass, storeRegisterClass, stackRegister] = [0x02, 0x03, 10];
const [sizeMask, wholeSlot] = [0x18, 0x18];
const [jumpAlways, call, exit, loadWide] = [0x05, 0x85, 0x95, 0x18];

/** The possible next instructions after the instruction at a position. */
function successors(program: Buffer, index: number): readonly number[] {
  const at = index * instructionBytes;
  const code = program.readUInt8(at);
  const target = index + 1 + program.readInt16LE(at + 2);
  if (code === exit) return [];
  if (code === jumpAlways) return [target];
  if (code === loadWide) return [index + 2];
  const isJump = [jumpClass, jump32Class].includes(code & classMask) && code !== call;
  return isJump ? [index + 1, target] : [index + 1];
}

/** Whether some path through the program returns to an earlier instruction. */
function hasLoop(
  program: Buffer,
  index = 0,
  above = new Set<number>(),
  left = new Set<number>(),
): boolean {
  if (above.has(index)) return true;
  if (left.has(index)) return false;
  above.add(index);
  const found = successors(program, index).some((next) => hasLoop(program, next, above, left));
  above.delete(index);
  left.add(index);
  return found;
}

describe('the object file of the programs', () => {
  // clang puts a struct literal into `.rodata`, with a BTF entry without members. Linux before 5.12
  // then refuses the whole BTF, and so the map of dials, which needs BTF: eBPF mode does not load
  // on 5.10.
  it('contains no constant of the compiler, which Linux 5.10 refuses', () => {
    const names = readSections(readPrograms()).map(({ name }) => name);
    assert.ok(names.includes('cgroup/connect4'), names.join(' '));
    const data = names.filter((name) => /^\.(?:rodata|data|bss)/.test(name));
    assert.deepEqual(data, ['.rodata.nmi']);
  });

  // On Linux before 6.8, an agent without CAP_PERFMON may write a stack slot in which the compiler
  // kept a register only as a whole: "attempt to corrupt spilled pointer on stack", seen on 5.10.
  it('writes no partial stack slot, which Linux 5.10 refuses for an agent without CAP_PERFMON', () => {
    const programs = readSections(readPrograms()).filter(({ name }) =>
      /^cgroup|^sockops/.test(name),
    );
    for (const { name, bytes } of programs) {
      for (let at = 0; at < bytes.length; at += instructionBytes) {
        const [code = 0, registers = 0] = bytes.subarray(at);
        const isStore = [storeClass, storeRegisterClass].includes(code & classMask);
        if (!isStore || (registers & 0x0f) !== stackRegister) continue;
        assert.equal(code & sizeMask, wholeSlot, `${name}, instruction ${at / instructionBytes}`);
      }
    }
  });

  // A process that may not trace the kernel (no CAP_PERFMON), such as the DaemonSet, must not read
  // it by speculation either. With mitigations on, the verifier follows the wrong path of each
  // branch as well, and so follows a loop without end: "The sequence of 8193 jumps is too complex",
  // seen on 5.10, 6.1 and 6.12; 6.18 and 7.3 accept it.
  it('has no loop, which Linux 6.12 refuses for an agent without CAP_PERFMON', () => {
    const programs = readSections(readPrograms()).filter(({ name }) =>
      /^cgroup|^sockops/.test(name),
    );
    assert.equal(programs.length, 6);
    for (const { name, bytes } of programs) assert.equal(hasLoop(bytes), false, name);
  });
});
