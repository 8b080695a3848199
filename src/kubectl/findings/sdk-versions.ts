/** Which Azure SDKs support Workload Identity: the versions that Microsoft's page requires. */
import type { SdkFamily } from '../../nmi/telemetry/user-agent.ts';

interface Sdk {
  /** The name that developers use. */
  readonly title: string;
  /** First version with Workload Identity; undefined if every version that calls IMDS has it. */
  readonly minimum: string | undefined;
}

const sdks: Readonly<Record<SdkFamily, Sdk>> = {
  'azsdk-cpp-identity': { title: 'azure-identity-cpp', minimum: '1.6.0' },
  'azsdk-go-azidentity': { title: 'azidentity for Go', minimum: '1.3.0' },
  'azsdk-java-azure-identity': { title: 'azure-identity for Java', minimum: '1.9.0' },
  'azsdk-js-identity': { title: '@azure/identity for JavaScript', minimum: '3.2.0' },
  // The credentials moved to this package years after they supported Workload Identity.
  'azsdk-net-core': { title: 'Azure.Core for .NET', minimum: undefined },
  'azsdk-net-identity': { title: 'Azure.Identity for .NET', minimum: '1.9.0' },
  'azsdk-python-identity': { title: 'azure-identity for Python', minimum: '1.13.0' },
};

/** A sentence with all minimum versions. */
export const sdkRule = `Pods need an SDK that supports Workload Identity: ${Object.values(sdks)
  .flatMap(({ title, minimum }) => (minimum === undefined ? [] : [`${title} ${minimum}`]))
  .join(', ')}, or later.`;

/** Whether a client that an agent saw is ready for Workload Identity. */
export type SdkVerdict =
  | { readonly kind: 'knows'; readonly title: string; readonly version: string }
  | {
      readonly kind: 'too-old';
      readonly title: string;
      readonly version: string;
      readonly minimum: string;
    }
  /** Not an Azure SDK of this list. */
  | { readonly kind: 'unknown' };

/** @param client as reported by the agent: `azsdk-python-identity/1.12.0`, or `other`. */
export function classifySdk(client: string): SdkVerdict {
  const [family = '', version = ''] = client.split('/', 2);
  const sdk = Object.entries(sdks).find(([name]) => name === family)?.[1];
  if (sdk === undefined || !/^\d+(?:\.\d+)*$/.test(version)) return { kind: 'unknown' };
  const { title, minimum } = sdk;
  return minimum === undefined || isAtLeast(version, minimum)
    ? { kind: 'knows', title, version }
    : { kind: 'too-old', title, version, minimum };
}

function isAtLeast(version: string, minimum: string): boolean {
  const [have, want] = [version, minimum].map((text) => text.split('.').map(Number));
  for (const [index, number] of (want ?? []).entries()) {
    const other = have?.[index] ?? 0;
    if (other !== number) return other > number;
  }
  return true;
}
