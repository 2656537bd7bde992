/** What the routes answer; see docs/status-api.md. */
export type State = 'Pending' | 'Running' | 'Waiting' | 'Paused' | 'Success' | 'Failure' | 'Canceled'
export type Action = 'pause' | 'resume' | 'cancel' | 'resubmit' | 'priority'

export interface Transfer {
  ID: string
  Job: string | null
  Direction: 'send' | 'receive'
  Mode: 'push' | 'pull'
  Peer: string | null
  RemoteAddress: string | null
  State: State
  Phase: string | null
  Resources: { Level: string; ID: string }[]
  ResourcesCount: number
  Patient: { ID: string; Name: string } | null
  Study: { ID: string; Description: string; Date: string; Modality: string; StudyInstanceUID?: string } | null
  Instances: number | null
  DoneInstances: number | null
  Bytes: number
  DoneBytes: number | null
  WireBytes: number
  SpeedBytes: number
  SecondsLeft: number | null
  Ratio: number | null
  Codecs: Record<string, number>
  CompressionAsked: string | null
  CompressionUsed: string | null
  Waiting: { For: string; Since: string } | null
  Error: string | null
  Priority: number | null
  Created: string | null
  Started: string | null
  Ended: string | null
  Report: boolean
  Actions: Action[]
}

export interface Status {
  Now: string
  Total: number
  Active: number
  Bandwidth: { LimitKBs: number; Until: string | null }
  SpeedBytes: number
  Transfers: Transfer[]
}

export interface Found {
  ID: string
  Level: 'Study' | 'Series'
  Parent: string
  Tags: Record<string, string>
  Modalities: string[]
  Series: number
  Instances: number
  Local: 'none' | 'part' | 'whole'
}

export interface Peer {
  ID: string
  State: 'disabled' | 'installed' | 'bidirectional'
  Error: string | null
  Url: string | null
  Name: string | null
  OrthancVersion: string | null
  Version: string | null
  Protocol: number | null
  RoundTripSeconds: number | null
  Codecs: string[]
  Measurable: boolean
}

export interface Speed {
  Bytes: number
  Seconds: number
  BytesPerSecond: number
}

export interface Rule {
  Days: string
  From: string
  To: string
  LimitKBs: number
}

export interface Settings {
  Bandwidth: { LimitKBs: number; PeerLimitKBs: number; Peers: Record<string, number>; Schedule: Rule[]; NowKBs?: number }
  InForce: Record<string, unknown>
  RuntimeChangeable: string[]
}

export type EntryState = 'Waiting' | 'Running' | 'Finishing' | 'Done' | 'Failed' | 'GivenUp' | 'Dropped'

export interface Comparison {
  Peer: string
  Running: boolean
  Compared: number
  Queued: number
  Deleted: number
  Began: string | null
  Ended: string | null
  Said: string | null
}

export interface KnownRule {
  Name: string
  Source: string
  Rule: { Enabled?: boolean; Trigger?: string | { At: string; Days?: string }; Destinations?: string | string[]; Compare?: unknown }
  Problem: string | null
  Counts: Record<EntryState, number>
  OldestSeconds: number | null
  Comparisons: Comparison[]
}

export interface RuleList {
  Rules: KnownRule[]
  Obstacle: string | null
  UnreachablePeers: string[]
}

export interface Entry {
  ID: number
  Rule: string
  Resource: { Level: string; ID: string }
  Origin: string
  State: EntryState
  Destination: string | null
  Peer: string | null
  Job: string | null
  Attempts: number
  OutsideWindow: boolean
  Queued: string
  Ended: string | null
  Said: string | null
}
