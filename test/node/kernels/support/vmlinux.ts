/**
 * Extracts the kernel from a compressed image: the content that the image's own decompressor, slow
 * when emulated, would write to memory.
 */
import { spawnSync } from 'node:child_process';
import type { Architecture } from '../../../../scripts/image/builder.ts';

const decompressors = [
  { magic: 'fd377a58', command: ['xz', '-dc', '--single-stream'] },
  { magic: '28b52ffd', command: ['zstd', '-dcq'] },
  { magic: '02214c18', command: ['lz4', '-dcq'] },
  { magic: '1f8b08', command: ['gzip', '-dcq'] },
] as const;

const elf = '7f454c46';
/** At this offset of an arm64 kernel: its magic number. */
const armMagic = { offset: 0x38, hex: '41524d64' } as const;

/** @throws Error if it is none, or its compression is unknown. */
export function extractKernel(image: Buffer, architecture: Architecture): Buffer {
  return architecture === 'amd64' ? extractVmlinux(image) : extractImage(image);
}

/** From the x86 boot protocol: `setup_sects`, `payload_offset` and `payload_length` of its header. */
function extractVmlinux(bzImage: Buffer): Buffer {
  const sectors = bzImage.readUInt8(0x1f1) || 4;
  const start = (sectors + 1) * 512 + bzImage.readUInt32LE(0x248);
  const kernel = decompress(bzImage.subarray(start, start + bzImage.readUInt32LE(0x24c)));
  if (magicOf(kernel) !== elf) throw new Error('the bzImage contains no kernel');
  return kernel;
}

/** An arm64 Image, or an EFI image that contains it compressed: `zimg`, its offset and its length. */
function extractImage(image: Buffer): Buffer {
  const isCompressed = image.toString('latin1', 4, 8) === 'zimg';
  const start = image.readUInt32LE(8);
  const kernel = isCompressed
    ? decompress(image.subarray(start, start + image.readUInt32LE(12)))
    : image;
  if (magicOf(kernel, armMagic.offset) !== armMagic.hex) throw new Error('this is no arm64 kernel');
  return kernel;
}

function decompress(payload: Buffer): Buffer {
  const magic = magicOf(payload);
  const known = decompressors.find(({ magic: each }) => magic.startsWith(each));
  if (known === undefined) throw new Error(`unknown compression of a kernel: ${magic}`);
  const [tool, ...args] = known.command;
  // The stream is followed by its length, about which the tools print errors.
  return spawnSync(tool, args, { input: payload, maxBuffer: 1 << 30 }).stdout;
}

function magicOf(bytes: Buffer, offset = 0): string {
  return bytes.subarray(offset, offset + 4).toString('hex');
}
