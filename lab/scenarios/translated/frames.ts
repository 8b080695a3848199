/** Requests in hand-crafted frames, which no socket of the node's kernel opens. */
import assert from 'node:assert/strict';
import { gatewayMac } from '../../fabric/fabric.ts';
import { labCommand } from '../../fabric/lab-command.ts';
import { ownLinkMac, type PodLinkKind } from '../../fabric/pod-link.ts';
import { tokenTarget, type LabPod, type PodReply } from '../../pods/pod.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

/** The address that pods dial, and the agent's own. */
export const metadataAddress = { ip: '169.254.169.254', port: 80 } as const;
export const agentAddress = { ip: '169.254.25.79', port: 2579 } as const;

export interface FrameOptions {
  /** Of the pod that sends. */
  readonly link: PodLinkKind;
  /** Source address; default: the pod's own. */
  readonly from?: string;
  /** Source port; default: any. */
  readonly fromPort?: number;
  /** Default: the address that pods dial. */
  readonly to?: { readonly ip: string; readonly port: number };
}

/** The kernel resets connections that it did not open. */
export async function silenceKernel(testBed: TestBed, pod: LabPod): Promise<void> {
  const rule = ['-A', 'OUTPUT', '-p', 'tcp', '--tcp-flags', 'RST', 'RST', '-j', 'DROP'];
  const { code, stderr } = await testBed.environment.runInPod(pod.name, 'iptables', rule);
  assert.equal(code, 0, stderr);
}

/** One token request; its failure is `NO_ANSWER` if no answer reached the pod. */
export async function askByFrames(
  testBed: TestBed,
  pod: LabPod,
  { link, from = pod.ip, fromPort, to = metadataAddress }: FrameOptions,
): Promise<PodReply> {
  const mac = link === 'own' ? ownLinkMac : gatewayMac;
  const ends = ['eth0', from, mac, to.ip, String(to.port), tokenTarget({})];
  const port = fromPort === undefined ? [] : [String(fromPort)];
  const [program, ...leading] = labCommand;
  const words = [...leading, 'forge', ...ends, ...port];
  const { stdout } = await testBed.environment.runInPod(pod.name, program, words);
  return pod.noteResponse(stdout);
}
