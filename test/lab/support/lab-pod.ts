/** What `nmi lab-pod` does, without the command line around it. */
import { runPodAgent } from '../../../lab/pods/pod-agent.ts';

await runPodAgent(process.stdin, process.stdout);
process.exit(0);
