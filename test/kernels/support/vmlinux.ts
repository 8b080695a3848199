/**
 * The kernel itself out of a bzImage: what its own decompressor, slow when emulated, would write
 * into memory.
 */
import { spawnSync } from 'node:child_process';

const decompressors = [
  { magic: 'fd377a58', command: ['xz', '-dc', '--single-stream'] },
  { magic: '28b52ffd', command: ['zstd', '-dcq'] },
  { magic: '02214c18', command: ['lz4', '-dcq'] },
  { magic: '1f8b0800', command: ['gzip', '-dcq'] },
] as const;

const elf = '7f454c46';

/**
 * From the x86 boot protocol: `setup_sects`, `payload_offset` and `payload_length` of its header.
 */
export function extractVmlinux(bzImage: Buffer): Buffer {
  const sectors = bzImage.readUInt8(0x1f1) || 4;
  const start = (sectors + 1) * 512 + bzImage.readUInt32LE(0x248);
  const payload = bzImage.subarray(start, start + bzImage.readUInt32LE(0x24c));
  const magic = magicOf(payload);
  const known = decompressors.find((each) => each.magic === magic);
  if (known === undefined)
    throw new Error(`a kernel that is compressed in an unknown way: ${magic}`);
  const [tool, ...args] = known.command;
  // The stream is followed by its length, about which the tools print errors.
  const { stdout } = spawnSync(tool, args, { input: payload, maxBuffer: 1 << 30 });
  if (magicOf(stdout) !== elf) throw new Error(`${tool} found no kernel`);
  return stdout;
}

function magicOf(bytes: Buffer): string {
  return bytes.subarray(0, 4).toString('hex');
}
