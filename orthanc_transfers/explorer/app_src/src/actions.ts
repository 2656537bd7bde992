/** Pauses, resumes, cancels, resubmits and ranks transfers, one or several: POST /transfers/actions. */
import { post } from './api'
import { t } from './i18n'
import { tell } from './messages'
import { refresh } from './status'
import type { Action, Transfer } from './types'

/** Those of one click. */
export const CLICKS: Partial<Record<Action, string>> = { pause: 'pause', resume: 'play', cancel: 'x', resubmit: 'arrowClockwise' }

interface Result {
  ID: string
  Ok: boolean
  Error?: string
  Job?: string
}

/** Says how it ended, and returns the identifiers of those that are other jobs now. */
export async function act(action: Action, transfers: Transfer[], priority?: number): Promise<Map<string, string>> {
  const moved = new Map<string, string>()
  try {
    const asked = { Action: action, IDs: transfers.map((one) => one.ID), ...(priority === undefined ? {} : { Priority: priority }) }
    const results: Result[] = (await post('transfers/actions', asked)).Results
    const refused = results.filter((one) => !one.Ok)
    for (const one of results) if (one.Job) moved.set(one.ID, one.Job)
    const said = refused.length < results.length || !results.length ? [t(`done.${action}`, { n: results.length - refused.length })] : []
    if (refused.length) said.push(refused[0].Error ?? '')
    if (refused.length > 1) said.push(t('done.others', { n: refused.length - 1 }))
    tell(refused.length ? 'bad' : 'good', said.join(' · '))
  } catch (error) {
    tell('bad', error)
  }
  refresh()
  return moved
}
