import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readPrograms } from '../../../src/redirect/native/native-files.ts';

/** The names of an ELF file's sections (64 bit, little endian, as every BPF object is here). */
function sectionNames(object: Uint8Array): readonly string[] {
  const file = Buffer.from(object);
  const headersAt = Number(file.readBigUInt64LE(0x28));
  const [size, count, namesIndex] = [0x3a, 0x3c, 0x3e].map((at) => file.readUInt16LE(at));
  assert.ok(size !== undefined && count !== undefined && namesIndex !== undefined);
  const header = (index: number) => file.subarray(headersAt + index * size);
  const namesAt = Number(header(namesIndex).readBigUInt64LE(0x18));
  return Array.from({ length: count }, (_, index) => {
    const at = namesAt + header(index).readUInt32LE(0);
    return file.toString('latin1', at, file.indexOf(0, at));
  });
}

describe('the object file of the programs', () => {
  // clang makes `.rodata` of a struct literal, with a BTF entry without members. Linux before 5.12 refuses
  // the whole BTF for it, and then the map of dials, which needs BTF: eBPF mode does not load on 5.10.
  it('holds no constant of the compiler, which Linux 5.10 refuses', () => {
    const names = sectionNames(readPrograms());
    assert.ok(names.includes('cgroup/connect4'), names.join(' '));
    const data = names.filter((name) => /^\.(?:rodata|data|bss)/.test(name));
    assert.deepEqual(data, ['.rodata.nmi']);
  });
});
