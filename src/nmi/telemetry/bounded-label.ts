/** A label with values from outside: all after the first `max` distinct ones share "other". */
export class BoundedLabel {
  readonly #known = new Set<string>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  of(value: string): string {
    if (this.#known.has(value)) return value;
    if (this.#known.size >= this.#max || value.length > 255) return 'other';
    this.#known.add(value);
    return value;
  }
}

/** Resources that Azure SDKs request; everything else that a pod may invent is "other". */
const knownResources: ReadonlySet<string> = new Set([
  'https://management.azure.com',
  'https://management.core.windows.net',
  'https://vault.azure.net',
  'https://storage.azure.com',
  'https://graph.microsoft.com',
  'https://graph.windows.net',
  'https://database.windows.net',
  'https://ossrdbms-aad.database.windows.net',
  'https://servicebus.azure.net',
  'https://eventhubs.azure.net',
  'https://cosmos.azure.com',
  'https://monitor.azure.com',
  'https://containerregistry.azure.net',
  'https://search.azure.com',
  'https://cognitiveservices.azure.com',
]);

export function resourceLabel(resource: string): string {
  if (resource === '') return '';
  const trimmed = resource.replace(/\/$/, '');
  return knownResources.has(trimmed) ? trimmed : 'other';
}
