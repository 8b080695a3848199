/** Kinds of test files, by their names; some need exclusive use of the machine's kernel. */

/** Scenarios of the node lab, run whole. */
export function isLab(file: string): boolean {
  return /(?:^|\/)test\/lab\/scenarios[^/]*\.test\.ts$/.test(file);
}

/** Starts real Kubernetes servers. */
export function isCluster(file: string): boolean {
  return file.endsWith('.cluster.test.ts');
}

/** Builds a Debian system or an image with this project installed: minutes and downloads. */
export function isDebian(file: string): boolean {
  return file.endsWith('.debian.test.ts');
}

/** Boots a node with a real kubelet. */
export function isNode(file: string): boolean {
  return file.endsWith('.node.test.ts');
}

/** Starts virtual machines with other kernels, emulated: minutes for each. */
export function isVm(file: string): boolean {
  return file.endsWith('.vm.test.ts');
}

/** Takes more than an hour for all kernels, so it is run by hand. */
export function isLong(file: string): boolean {
  return file.startsWith('test/kernels/long/');
}

/** One at a time: creates namespaces, links, rules, loads the machine, or measures under load. */
export function isExclusive(file: string): boolean {
  return (
    isLab(file) ||
    isCluster(file) ||
    isDebian(file) ||
    isNode(file) ||
    isVm(file) ||
    file.endsWith('.kernel.test.ts') ||
    /(?:^|\/)test\/lab\/fabric\.test\.ts$/.test(file)
  );
}
