/** The client of the API server, as the options name it. */
import type { Clock } from '../../base/time/clock.ts';
import { userAgent } from '../base/build-info.ts';
import { StartError } from '../../base/start-error.ts';
import type { Config, Environment } from '../config/config.ts';
import { openKubeClient, type KubeClient } from '../kube/api/client.ts';

export interface ConfiguredClientOptions {
  readonly config: Pick<Config, 'kubeconfigPath' | 'customUserAgent'>;
  readonly clock: Clock;
  readonly environment: Environment;
}

/** @throws StartError with a remedy. */
export async function openConfiguredClient(options: ConfiguredClientOptions): Promise<KubeClient> {
  const { config, clock, environment } = options;
  try {
    return await openKubeClient({
      kubeconfigPath: config.kubeconfigPath,
      environment,
      userAgent: userAgent(config.customUserAgent),
      clock,
    });
  } catch (error) {
    const remedy = 'mount the service account token, or name a file with --kubeconfig';
    throw new StartError('CONFIG', 'no usable Kubernetes configuration', remedy, error);
  }
}
