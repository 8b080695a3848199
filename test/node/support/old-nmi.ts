/** The NMI of aad-pod-identity as an image under its own name: the real program, built from its module. */
import { copyFileSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { aadPodIdentity } from '../../cluster/support/go-module.ts';
import { providePrograms, type Provided } from '../../cluster/support/go-programs.ts';
import { buildOnBase, exportImage } from './images.ts';
import { provideCached } from './cached.ts';

const image = 'mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17';
const instructions = [
  'RUN apt-get update && apt-get install --yes --no-install-recommends iptables',
  'COPY nmi /bin/nmi',
  'ENTRYPOINT ["nmi"]',
];

/** Path of the archive. */
export function provideOldNmi(): Provided<string> {
  const recipe = {
    name: 'aad-pod-identity',
    module: aadPodIdentity,
    programs: { nmi: 'github.com/Azure/aad-pod-identity/cmd/nmi' },
  };
  const name = 'the NMI of aad-pod-identity';
  const built = providePrograms(name, recipe, 'node', (folder) => join(folder, 'nmi'));
  if (built.programs === undefined) return built;
  const archive = provideCached('old-nmi.tar', [built.programs, ...instructions], (path) => {
    const folder = join(dirname(path), 'context');
    mkdirSync(folder, { recursive: true });
    copyFileSync(built.programs, join(folder, 'nmi'));
    exportImage(buildOnBase(folder, instructions, image), image, path);
  });
  return { name, programs: archive, missing: undefined };
}
