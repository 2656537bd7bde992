/** The one request a second: GET /transfers/status, as narrow as the view needs it; none while nobody looks. */
import { reactive, ref, shallowRef } from 'vue'
import { get, RequestError } from './api'
import type { Status } from './types'

const PERIOD = 1000
const IDLE_PERIOD = 3000
const SAMPLES = 60

export const status = shallowRef<Status | null>(null)
export const failure = ref<RequestError | null>(null)
/** Speeds of the last minute, of all together ("") and by transfer. */
export const history = reactive<Record<string, number[]>>({ '': [] })

let query = 'limit=1'
let timer = 0
let asking = false
let again = false

/** What to ask for from now on. */
export function watchTransfers(wanted: string): void {
  query = wanted
  refresh()
}

/** Ask now: something was changed. */
export function refresh(): void {
  clearTimeout(timer)
  if (asking) again = true
  else void ask()
}

async function ask(): Promise<void> {
  if (document.hidden) return
  asking = true
  const asked = query
  try {
    const found: Status = await get(`transfers/status?${asked}`)
    failure.value = null
    if (asked === query) status.value = found
    remember(found)
  } catch (error) {
    failure.value = error as RequestError
  }
  asking = false
  const wait = again ? 0 : failure.value || !status.value?.Active ? IDLE_PERIOD : PERIOD
  again = false
  timer = setTimeout(ask, wait)
}

function remember(found: Status): void {
  const add = (id: string, speed: number) => {
    history[id] = [...(history[id] ?? []), speed].slice(-SAMPLES)
  }
  add('', found.SpeedBytes)
  for (const one of found.Transfers) if (!one.Ended) add(one.ID, one.SpeedBytes)
}

document.addEventListener('visibilitychange', () => {
  clearTimeout(timer)
  if (!document.hidden && !asking) void ask()
})
