/** Which test files need the machine's kernel to themselves, told by their names. */

/** Scenarios of the node lab, run whole. */
export function isLab(file: string): boolean {
  return /(?:^|\/)test\/lab\/scenarios[^/]*\.test\.ts$/.test(file);
}

/** Starts real servers of Kubernetes. */
export function isCluster(file: string): boolean {
  return file.endsWith('.cluster.test.ts');
}

/** Makes a Debian system or an image, with this project set up in it: minutes and downloads. */
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

/** Makes namespaces, links and rules, keeps the machine busy, or measures time under load: one at a time. */
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
