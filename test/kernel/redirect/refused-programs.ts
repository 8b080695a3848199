/**
 * An object file with one program that every verifier refuses: it reads from an arbitrary number.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const source = `
  #include <linux/bpf.h>
  #include <bpf/bpf_helpers.h>
  const volatile char settings[96] SEC(".rodata.nmi") = {};
  SEC("cgroup/connect4") int refused(struct bpf_sock_addr *ctx)
  {
    long *nowhere = (long *)(long)ctx->user_ip4;
    return *nowhere + settings[0];
  }
  char LICENSE[] SEC("license") = "Apache-2.0";
`;

/** @param folder a folder of the test, for the compiler's files. */
export function compileRefusedPrograms(folder: string): Uint8Array {
  const [text, object] = [join(folder, 'refused.bpf.c'), join(folder, 'refused.bpf.o')];
  writeFileSync(text, source);
  const multiarch = execFileSync('cc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  const flags = ['-target', 'bpf', '-O2', '-g', `-I/usr/include/${multiarch}`];
  execFileSync('clang', [...flags, '-c', text, '-o', object]);
  return readFileSync(object);
}
