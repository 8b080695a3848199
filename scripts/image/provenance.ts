/** Builder and materials of an image: an in-toto statement with SLSA's predicate, version 1. */

export interface Material {
  readonly name: string;
  readonly digest: Readonly<Record<string, string>>;
}

export interface ProvenanceFacts {
  /** Files and images, by a name and SHA-256 that a reader can check. */
  readonly subjects: readonly Material[];
  readonly architectures: readonly string[];
  readonly materials: readonly Material[];
}

const buildType = 'urn:entra-pod-identity:dev-image:1';

/** Contains no time or place: the same materials give the same text. */
export function renderProvenance({ subjects, architectures, materials }: ProvenanceFacts): string {
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: subjects,
    predicateType: 'https://slsa.dev/provenance/v1',
    predicate: {
      buildDefinition: {
        buildType,
        externalParameters: { architectures },
        resolvedDependencies: materials,
      },
      // The build itself writes this file; for a stronger guarantee, the builder must sign it.
      runDetails: { builder: { id: `${buildType}#scripts/image/image.ts` } },
    },
  };
  return `${JSON.stringify(statement, undefined, 2)}\n`;
}
